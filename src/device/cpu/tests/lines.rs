//! Lists that begin a cache line.

use super::super::lines::{Aligned, Lines};

#[test]
fn lists_begin_a_line_and_are_as_long_as_was_asked() {
    let mut list = Lines::<f32>::zeros(33, "a list").unwrap();
    assert_eq!(list[..], [0.0; 33]);
    list.copy_from_slice(&[1.0; 33]);
    // Shorter, or longer in the lines that are there, it stays where it is.
    let place = list.as_ptr();
    for n in [32, 0, 48] {
        list.resize(n, "a list").unwrap();
        assert_eq!((list.as_ptr(), list.len()), (place, n));
    }
    for n in [49, 1000, 100_000] {
        list.resize(n, "a list").unwrap();
        assert_eq!((list.as_ptr().addr() % 64, list.len()), (0, n));
        list.fill(2.0);
    }
    list.truncate(200_000);
    assert_eq!(list.len(), 100_000);
    list.truncate(3);
    assert_eq!(list[..], [2.0; 3]);
    assert_eq!(Lines::<i32>::default().len(), 0);
    let values = Aligned([0u8; 3]);
    assert_eq!((&raw const values).addr() % 64, 0);
}

#[test]
fn a_list_that_there_is_no_room_for_is_an_error_and_leaves_the_old_one() {
    let mut list = Lines::<f32>::zeros(5, "a list").unwrap();
    let error = list.resize(usize::MAX / 2, "a list").unwrap_err();
    assert!(error.to_string().contains("a list"), "{error}");
    assert_eq!(list[..], [0.0; 5]);
    assert!(Lines::<f32>::zeros(usize::MAX, "a list").is_err());
}
