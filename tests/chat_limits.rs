//! Templates come from strangers: whatever they ask for, a render ends soon, in little memory, and crashes nothing.

use llm::Error;
use llm::chat::{Limits, Template};
use serde_json::Map;
use std::sync::{Mutex, PoisonError};

/// Templates that ask for more time, memory or depth than there is.
fn hostile() -> Vec<String> {
    let loops = |body: &str| {
        format!(
            "{{% set ns = namespace(x='ab', l=[1], d={{}}) %}}{{% for i in range(100000) %}}{body}{{% endfor %}}{{{{ ns.x }}}}"
        )
    };
    let deep = |open: &str, middle: &str, close: &str| {
        format!("{{{{ {}{middle}{} }}}}", open.repeat(20_000), close.repeat(20_000))
    };
    let mut all: Vec<String> = [
        "{% set ns.x = ns.x ~ ns.x %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.x = ns.x * 1000 %}",
        "{% set ns.x = ns.x|replace('', ns.x) %}",
        "{% set ns.x = ns.x.replace('b', ns.x) %}",
        "{% set ns.x = [ns.x, ns.x]|join %}",
        "{% set ns.x = ns.x.join([ns.x, ns.x]) %}",
        "{% set ns.x = '%s%s'|format(ns.x, ns.x) %}",
        "{% set ns.x = '{0}{0}'.format(ns.x) %}",
        "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}",
        "{% set ns.x = ns.x|tojson %}",
        "{% set ns.x = ns.x|center(i * i) %}",
        "{% set ns.x = ns.x|indent(100000, true) %}",
        "{% set ns.x = (ns.x ~ '\\n')|indent(99999, true) %}",
        "{% set ns.x = ns.x.ljust(1000 * i) %}",
        "{% set ns.x = ns.x|e ~ '<>' ~ ns.x %}",
        "{% set ns.l = ns.l + ns.l %}",
        "{% set ns.l = ns.l * 1000 %}",
        "{% set ns.l = [ns.l, ns.l] %}",
        "{% set ns.l = (ns.l, ns.l) %}",
        "{% set ns.l = {'a': ns.l, 'b': ns.l} %}",
        "{% set ns.l = dict(a=ns.l, b=ns.l) %}",
        "{% set ns.l = [ns.l]|list %}",
        "{% set ns.l = [ns.l]|map('list')|list %}",
        "{% set ns.l = ns.l|batch(100000, 1)|list %}",
        "{% set ns.l = ns.l|slice(100000)|list %}",
        "{% set ns.l = namespace(l=ns.l) %}",
        "{% set ns.l = ns %}",
        "{% set ns.l = [ns] %}",
        "{% set ns.l = ns.l|zip(ns.l)|list %}",
        "{% set ns.l = (ns.l|items) %}",
        "{% set ns.l = [1]|groupby(attribute='x')|list + ns.l %}",
        "{% for j in range(100000) %}{% endfor %}",
        "{% for j in range(100000) %}x{% endfor %}",
        "{{ range(100000)|join }}",
        "{{ range(100000)|sort|unique|list|length }}",
        "{{ 'x' * 100000 in 'y' * 100000 }}",
        "{{ ('x' * 100000).count('x') }}",
        "{{ 'a' ~ 'x' * 100000 == 'a' ~ 'x' * 100000 }}",
        "{{ ('x' * 100000).strip('y' * 100000 ~ 'x') }}",
        "{{ ('x' * 100000)|trim('y' * 100000 ~ 'x') }}",
        "{% set ns.l = ns.l|chain(ns.l) %}",
    ]
    .map(loops)
    .to_vec();
    all.extend([
        deep("(", "1", ")"),
        deep("[", "1", "]"),
        deep("{'a': ", "1", "}"),
        deep("-", "1", ""),
        deep("not ", "1", ""),
        deep("1 + ", "1", ""),
        deep("1 ~ ", "1", ""),
        deep("1 * ", "1", ""),
        deep("1 ** ", "1", ""),
        deep("1 if 1 else ", "1", ""),
        deep("x[", "1", "]"),
        deep("x(", "1", ")"),
        deep("", "1", ".x"),
        deep("", "1", "|string"),
        deep("", "1", "()"),
        deep("", "1", " is odd"),
        deep("", "1", " < 2"),
        deep("", "1", " in x"),
        deep("x or ", "1", ""),
        deep("x and ", "1", ""),
        format!("{}{}", "{% if 1 %}".repeat(9_000), "{% endif %}".repeat(9_000)),
        format!("{}{}", "{% for x in [1] %}".repeat(7_000), "{% endfor %}".repeat(7_000)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000)),
        "{% macro f(s) %}{{ f(s ~ s) }}{% endmacro %}{{ f('ab') }}".to_owned(),
        "{% macro f(s) %}{{ f([s, s]) }}{% endmacro %}{{ f('ab') }}".to_owned(),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}".to_owned(),
        "{% macro f() %}{% call f() %}{% endcall %}{{ caller() }}{% endmacro %}{% call f() %}{% endcall %}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{{ 'x' * 10 ** 12 }}".to_owned(),
        "{{ ('x' * 10 ** 12)|length }}".to_owned(),
        "{{ [1] * 10 ** 12 }}".to_owned(),
        "{{ [[1] * 10 ** 9] * 10 ** 9 }}".to_owned(),
        "{{ ([1] * 10 ** 7) == ([1] * 10 ** 7) }}".to_owned(),
        "{{ range(10 ** 12) }}".to_owned(),
        "{{ 'x'|center(10 ** 12) }}".to_owned(),
        "{{ 'x'|indent(10 ** 12) }}".to_owned(),
        "{{ 'x'.zfill(10 ** 12) }}".to_owned(),
        "{{ '%99999999999d'|format(1) }}".to_owned(),
        "{{ '%*d'|format(999999999, 1) }}".to_owned(),
        "{{ '{:999999999}'.format(1) }}".to_owned(),
        "{{ '{:{}}'.format(1, 999999999) }}".to_owned(),
        "{{ [1]|batch(10 ** 12, 1)|list }}".to_owned(),
        "{{ [1]|slice(10 ** 12)|list }}".to_owned(),
        "{{ range(100000)|tojson(separators=('x' * 10000000, ':')) }}".to_owned(),
        "{{ [{}]|tojson(separators=(',', 'x'))|tojson(indent='x' * 300000000) }}".to_owned(),
        "{{ dict(range(100000)|batch(2))|tojson(separators=(',', 'x' * 10000000)) }}".to_owned(),
        "{{ ('a' * 50000000).split('a') }}".to_owned(),
        "{{ (' a' * 30000000).split() }}".to_owned(),
        "{{ ('\\n' * 50000000).splitlines() }}".to_owned(),
        "{{ strftime_now('%c' * 25000000) }}".to_owned(),
        "{% with s='x' * 30000000, d={'a': 1} %}{% for i in range(100000) %}{{ d.get(s) }}{% endfor %}{% endwith %}"
            .to_owned(),
        "{% with s='x' * 30000000 %}{% for i in range(100000) %}{{ 'x'|trim(s) }}{% endfor %}{% endwith %}".to_owned(),
        "{% with s='x' * 30000000 %}{% for i in range(100000) %}{{ 'x'.startswith(s) }}{% endfor %}{% endwith %}"
            .to_owned(),
        "{% with s='a' * 8000000 %}{% for i in range(99999) %}{{ s is lower }}{% endfor %}{% endwith %}".to_owned(),
        "{% with s='a' * 8000000 %}{% for i in range(99999) %}{{ s is not upper }}{% endfor %}{% endwith %}".to_owned(),
        "{% with s='a' * 8000000, t='a' * 8000000 %}{% for i in range(99999) %}{{ s == t }}{% endfor %}{% endwith %}"
            .to_owned(),
        "{% with s='a' * 8000000, t='a' * 8000000 %}{% for i in range(99999) %}{{ s is eq t }}{% endfor %}{% endwith %}"
            .to_owned(),
        "{% with s='a' * 8000000 %}{% for i in range(99999) %}{% if 1 > 2 or s < s %}{% endif %}{% endfor %}{% endwith %}"
            .to_owned(),
        "{% with s={'t': 'a' * 8000000} %}{% for i in range(99999) %}{{ s.t[-1] }}{% endfor %}{% endwith %}".to_owned(),
        "{% with s='a' * 8000000 %}{% for i in range(99999) %}{{ s[7999999:] }}{% endfor %}{% endwith %}".to_owned(),
        "{{ range(100)|sort(attribute='a,' * 10000000)|length }}".to_owned(),
        "{{ range(100)|map(attribute='a.' * 10000000)|list|length }}".to_owned(),
        "{{ [{'a': 1}, {'a': 2}]|groupby('a.' * 10000000)|length }}".to_owned(),
        "{% set l=['x' * 30000000] * 2 %}{% for i in range(1000) %}{{ l|sort|length }}{% endfor %}".to_owned(),
        "{% set l=['x' * 30000000] * 2 %}{% for i in range(1000) %}{{ l|max|length }}{% endfor %}".to_owned(),
        "{% set l=['x' * 30000000] * 2 %}{% for i in range(1000) %}{{ l|unique|length }}{% endfor %}".to_owned(),
        "{% set l=['x' * 30000000] * 2 %}{% for i in range(1000) %}{{ l.count(l[0]) }}{% endfor %}".to_owned(),
        "{% set d={'a': 'x' * 30000000, 'b': ''} %}{% for i in range(1000) %}{{ d|dictsort(by='value')|length }}{% endfor %}"
            .to_owned(),
        "{% set l=[{'a': 'x' * 30000000}] %}{% for i in range(1000) %}{{ l|groupby('a')|length }}{% endfor %}".to_owned(),
        "{% set a=['x' * 30000000] %}{% set b=['x' * 30000000] %}{% for i in range(100000) %}{{ a == b }}{% endfor %}"
            .to_owned(),
        "{% set a=[['x' * 30000000]] %}{% set b=[['x' * 30000000]] %}{% for i in range(100000) %}{{ a == b }}{% endfor %}"
            .to_owned(),
        "{% set a={'k': 'x' * 30000000} %}{% set b={'k': 'x' * 30000000} %}{% for i in range(99999) %}{{ a == b }}{% endfor %}"
            .to_owned(),
        "{% set s='x' * 8000000 %}{% set l=['x' * 8000000] %}{% for i in range(99999) %}{{ s in l }}{% endfor %}".to_owned(),
        "{% set s='x' * 30000000 %}{% for i in range(100000) %}{% set d={s: 1} %}{% endfor %}".to_owned(),
        "{{ (['x' * 63] * 300000)|sum(start='')|length }}".to_owned(),
        "{{ ([[1]] * 300000)|sum(start=[])|length }}{% for i in range(999) %}{{ ([[1]] * 9999)|sum(start=[]) }}{% endfor %}"
            .to_owned(),
        sliced(3000),
        "{% for x in [1] %}{{ loop.cycle() }}{% endfor %}".to_owned(),
        doubled("[1]", "[1]", |name| format!("{name}|chain({name})")),
        doubled("[1]", "[1]", |name| format!("{name} + {name}")),
        "{% macro f(a) %}{{ f(a + a) }}{% endmacro %}{{ f([1] + [1]) }}".to_owned(),
        "x".repeat(300 << 10),
    ]);
    all
}

/// A loop over a `with` block of slices of slices.
fn sliced(names: usize) -> String {
    let slices: String = (1..names).map(|i| format!(", a{i}=a{}{}", i - 1, "[0:]".repeat(20))).collect();
    format!("{{% for i in range(100000) %}}{{% with a0=[1, 2, 3]{slices} %}}x{{% endwith %}}{{% endfor %}}")
}

/// A `with` block of values that are each made of the last one twice.
fn doubled(first: &str, second: &str, twice: impl Fn(&str) -> String) -> String {
    let first = twice("x").replacen('x', first, 1).replacen('x', second, 1);
    let steps: String = (1..60).map(|i| format!(", a{i}={}", twice(&format!("a{}", i - 1)))).collect();
    format!("{{% with a0={first}{steps} %}}{{{{ a59.q }}}}{{{{ a59|length }}}}{{% endwith %}}")
}

fn render(source: &str) -> llm::Result<String> {
    Template::new(source, Limits::default())?.render(&Map::new(), 0)
}

/// On a thread with a small stack.
fn on_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
}

/// What the refusals say: that a limit was reached, not that something is unknown.
const LIMITS: [&str; 18] = [
    "units of work",
    "steps",
    "writes more than",
    "lists and dicts more than",
    "a list or dict of more than",
    "a list of more than",
    "a list or dict cannot hold",
    "a namespace cannot hold",
    "range: more than",
    "recursion limit",
    "numbers of more than 4 digits",
    "the width must be",
    // Of a format, for a number that is an argument.
    "invalid conversion type",
    "an expression of more than",
    "blocks in each other",
    "a chat template of",
    "sum: a value of type string cannot be added",
    "made its engine panic",
];

/// Renders a template that is to be refused for a limit, in less than `mib` of memory. What is wrong, if it is not so.
fn wrong(source: &str, limits: Limits, mib: usize) -> Option<String> {
    // Memory is the process's: one at a time, from what there is now.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let rendered = Template::new(source, limits).and_then(|template| template.render(&Map::new(), 0));
    let what = match rendered {
        Ok(text) => format!("{} bytes", text.len()),
        Err(Error::InvalidArgument(error)) => error.to_string(),
        Err(error) => format!("{error:?}"),
    };
    let is_refused = LIMITS.iter().any(|limit| what.contains(limit));
    (!is_refused || peak() >= mib).then(|| format!("{}: {what}, {} MiB", &source[..source.len().min(150)], peak()))
}

/// The most memory that this process has had since that was asked last, in MiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 10
}

#[test]
fn hostile_templates_are_refused() {
    on_small_stack(|| {
        let all: Vec<_> = hostile().iter().filter_map(|source| wrong(source, Limits::default(), 400)).collect();
        assert!(all.is_empty(), "{all:#?}");
    });
}

/// The engine's function that writes out everything it is given.
#[test]
fn debug_is_no_function() {
    let error = render("{{ debug(1) }}").unwrap_err();
    assert!(error.to_string().contains("debug is unknown"), "{error}");
}

/// Those that a long conversation has are not out of reach either.
#[test]
fn hostile_templates_are_refused_in_long_conversations() {
    let limits = Limits::of_conversation(2000, 3 << 20);
    for source in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab', l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [ns.x * 100000] %}{% endfor %}",
        "{% with s='a' * 8000000 %}{% for i in range(99999) %}{{ s is lower }}{% endfor %}{% endwith %}",
    ] {
        assert_eq!(wrong(source, limits, 900), None);
    }
}

/// What the limits allow needs no more stack than there is.
#[test]
fn what_is_just_allowed_works() {
    let chains = ["(", "[", "-", "not ", "1 + ", "1 ~ ", "1 * ", "x or ", "1 if 0 else ", "{'a': "];
    on_small_stack(move || {
        for open in chains {
            let tokens = open.split_whitespace().count().max(if open == "{'a': " { 3 } else { 1 });
            let close = match open {
                "(" => ")",
                "[" => "]",
                "{'a': " => "}",
                _ => "",
            };
            for count in [100, (1000 - 1) / (tokens + close.len())] {
                // The engine has limits of its own for some of them.
                match render(&format!("{{{{ {}1{} }}}}", open.repeat(count), close.repeat(count))) {
                    Ok(text) => assert!(!text.is_empty()),
                    Err(error) => assert!(matches!(error, Error::InvalidArgument(_)), "{open}: {error}"),
                }
            }
        }
        // What is doubled without getting larger.
        let sums = doubled("[]", "[]", |name| format!("{name} + {name}"));
        assert_eq!(render(&sums).unwrap(), "0");
        let dicts = doubled("{'y': 1}", "{'z': 2}", |name| format!("{name}|chain({name})"));
        assert_eq!(render(&dicts).unwrap(), "2");
        let calls = "{% macro f(a, n) %}{% if n %}{{ f(a + a, n - 1) }}{% else %}{{ a }}{% endif %}{% endmacro %}";
        assert_eq!(render(&format!("{calls}{{{{ f([], 60) }}}}")).unwrap(), "[]");
        let blocks = format!("{}x{}", "{% if 1 %}".repeat(100), "{% endif %}".repeat(100));
        assert_eq!(render(&blocks).unwrap(), "x");
        let nested = "{% set ns = namespace(l=[]) %}{% for i in range(150) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}{{ ns.l == ns.l }}{{ ns.l|tojson|length }}";
        assert_eq!(render(nested).unwrap(), format!("{}{}True302", "[".repeat(151), "]".repeat(151)));
    });
}
