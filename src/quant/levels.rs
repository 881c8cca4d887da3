//! The numbers that codes stand for, before they are multiplied with a scale.

/// The set of numbers that codes 0, 1, ... stand for, ascending.
pub(super) trait Levels: Copy {
    /// The lowest and the highest.
    fn ends(self) -> [f32; 2];
    /// The usual distance between two.
    fn gap(self) -> f32;
    /// The level nearest to t; any one if t is NaN.
    fn nearest(self, t: f32) -> f32;
    /// The code of a level.
    fn code(self, level: f32) -> u8;
}

/// All integers from `low` to `high`; |low| and |high| are below 2^22.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    pub low: f32,
    pub high: f32,
}

impl Levels for Integers {
    fn ends(self) -> [f32; 2] {
        [self.low, self.high]
    }
    fn gap(self) -> f32 {
        1.0
    }
    #[inline(always)]
    fn nearest(self, t: f32) -> f32 {
        // Adding 1.5 * 2^23 rounds to an integer, ties to even.
        const ROUND: f32 = 12_582_912.0;
        // One instruction each, unlike f32::max and min; NaN becomes `low`.
        let t = if t > self.low { t } else { self.low };
        let t = if t < self.high { t } else { self.high };
        (t + ROUND) - ROUND
    }
    fn code(self, level: f32) -> u8 {
        (level - self.low) as u8
    }
}

/// Places in `Table::nearest`: one for each half from -127 to 127.
const HALVES: usize = 4 * 127 + 1;

/// Ascending numbers in [-127, 127], with the nearest of them to everything.
#[derive(Clone, Copy)]
pub(super) struct Table {
    numbers: &'static [i8; 16],
    /// Place i holds the number nearest to t for t in [i / 2 - 127, i / 2 - 126.5): halfway between two integers lies
    /// at a boundary.
    nearest: &'static [i8; HALVES],
}

impl Table {
    /// What `nearest` holds.
    pub(super) const fn nearest(numbers: &[i8; 16]) -> [i8; HALVES] {
        let (mut nearest, mut i, mut n) = ([0; HALVES], 0, 0);
        while i < HALVES {
            // The sum of two numbers is twice what lies halfway.
            while n < 15 && i as i32 - 254 >= numbers[n] as i32 + numbers[n + 1] as i32 {
                n += 1;
            }
            nearest[i] = numbers[n];
            i += 1;
        }
        nearest
    }

    pub(super) const fn new(numbers: &'static [i8; 16], nearest: &'static [i8; HALVES]) -> Table {
        Table { numbers, nearest }
    }
}

impl Levels for Table {
    fn ends(self) -> [f32; 2] {
        [f32::from(self.numbers[0]), f32::from(self.numbers[15])]
    }
    fn gap(self) -> f32 {
        16.0
    }
    #[inline(always)]
    fn nearest(self, t: f32) -> f32 {
        // The conversion cuts off; below 0 and NaN become 0.
        let i = ((t + 127.0) * 2.0) as usize;
        f32::from(self.nearest[i.min(HALVES - 1)])
    }
    fn code(self, level: f32) -> u8 {
        self.numbers.iter().take_while(|&&number| f32::from(number) < level).count() as u8
    }
}
