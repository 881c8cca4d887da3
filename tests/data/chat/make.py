#!/usr/bin/env python3
"""Makes goldens.json: what jinja2, in the environment that transformers gives chat templates, makes of the templates
beside this file and of many small expressions.

    pip install jinja2==3.1.6; make.py
"""

import datetime
import json
import pathlib

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
NOW = 1732492800 + 3 * 3600 + 25 * 60 + 7  # 2024-11-25 03:25:07 UTC


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None).strftime(format)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = strftime_now


def render(source, variables):
    """The text, or the exception that the template raised; None if it fails in another way."""
    try:
        return {"text": environment.from_string(source).render(**variables)}
    except jinja2.exceptions.TemplateError as e:
        if type(e) is jinja2.exceptions.TemplateError:
            return {"exception": e.message}
        return {"fails": True}
    except Exception:
        return {"fails": True}


def tool(name, description, properties, required=None, **more):
    parameters = {"type": "object", "properties": properties}
    if required is not None:
        parameters["required"] = required
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters, **more}}


TOOLS = [
    tool(
        "get_weather",
        "The weather\nof a place <now> & later.",
        {
            "place": {"type": "string", "description": "a town's name, \"like this\" or 'like that'"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "days": {"type": "integer", "nullable": True},
        },
        ["place"],
        **{"return": {"type": "string"}},
    ),
    tool(
        "add",
        "Adds numbers – 加.",
        {
            "numbers": {"type": "array", "items": {"type": "number"}},
            "options": {"type": "object", "properties": {"exact": {"type": "boolean"}, "name": {"type": ["string", "null"]}}},
            "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "free": {},
        },
    ),
    tool("now", "The time.", {}),
]


def call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "  Be brief. "}
HELLO = {"role": "user", "content": " Hello, <you> & 'me' \"too\"!\n"}
ANSWER = {"role": "assistant", "content": " Hi.\n\nWhat now? "}
MORE = {"role": "user", "content": "Grüße aus 東京 🙂\n\tx = [1, 2]"}
CALL = {
    "role": "assistant",
    "content": None,
    "thinking": "need a tool",
    "tool_calls": [call("abcdefghi", "get_weather", {"place": "Bad Tölz", "days": 3, "ok": True, "x": None, "f": 0.5, "deep": {"a": [1, "2"]}})],
}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": '{"t": 21.5}'}
CALLS = {"role": "assistant", "content": "Both.", "tool_calls": [call("id1id1id1", "now", {}), call("id2id2id2", "add", {"numbers": [1, 2.0, 1e20]})]}
RESULTS = [
    {"role": "tool", "name": "now", "tool_call_id": "id1id1id1", "content": "12:00"},
    {"role": "tool", "name": "add", "tool_call_id": "id2id2id2", "content": "3"},
]
THOUGHT = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nDone."}
REASONED = {"role": "assistant", "content": "Done.", "reasoning_content": "Let me see.\n"}
PARTS = {"role": "user", "content": [{"type": "text", "text": " one "}, {"type": "image"}, {"type": "text", "text": "two"}]}

CONVERSATIONS = {
    "one": [HELLO],
    "system": [SYSTEM, HELLO],
    "long": [SYSTEM, HELLO, ANSWER, MORE],
    "answered": [HELLO, ANSWER],
    "two systems": [SYSTEM, SYSTEM, HELLO],
    "wrong order": [HELLO, HELLO],
    "thoughts": [HELLO, THOUGHT, MORE, THOUGHT],
    "reasoning": [HELLO, REASONED],
    "parts": [SYSTEM, PARTS],
    "call": [SYSTEM, HELLO, CALL, RESULT],
    "calls": [HELLO, CALLS, *RESULTS, ANSWER, MORE],
    "call answered": [HELLO, CALL, RESULT, ANSWER],
    "result alone": [HELLO, RESULT],
    "nested": [{"role": "user", "content": "a", "children": [{"role": "tool", "content": "b"}, {"role": "stop"}]}, SYSTEM, ANSWER],
}
DOCUMENTS = [{"title": "Ünï", "text": "First  document\nhere."}, {"title": "B", "text": "SECOND one"}]
COMMON = {"bos_token": "<s>", "eos_token": "</s>"}

# Variables of the expressions.
VARIABLES = {
    "s": "  Hello, World  ", "t": "a,b,,c", "e": "", "n": 7, "m": -3, "f": 2.5, "big": 12345678901234567890, "yes": True, "no": False,
    "nil": None, "l": [3, 1, 2], "words": ["pear", "Apple", "fig"], "d": {"b": 1, "a": [1, "x", None, True], "items": "I"},
    "rows": [{"k": "x", "v": 1, "z": {"q": 5}}, {"k": "y", "v": 2}, {"k": "x", "v": 3, "z": {"q": 0}}], "uni": "Straße ǆ é\u200b\u00a0🙂", "q": "it's \"so\"",
    "floats": [1.0, 0.1, 1e16, 1e-5, 123456789.125, -0.0, 1e100], "nested": {"a": {"b": {"c": [1, 2, {"d": "e"}]}}},
}
EXPRESSIONS = r"""
yes ~ no ~ nil | [yes, nil, 1.0, 'a', "it's"] | d | floats | floats[2] | 1e16 | (1, 2) | (1,) | () | {} | [] | {'a': 1, 2: 'b', none: 1.5}
q | [q] | [uni] | ['\n\t\\\x00'] | [s, t] ~ '' | n / 2 | n // 2 | m // 2 | n % 3 | m % 3 | 2 ** 10 | 2 ** -1 | -n ** 2 | 7 / 7 | f * 2 | n * f
'ab' * 3 | 3 * 'ab' | [1, 2] * 2 | (1, 2) * 2 | 2 * 3 + 4 * 5 | 2 + 3 * 4 ** 2 * 1 | n * 2 is odd | n * 3 is not even | 10 - 2 * 3 - 1 | 'a' ~ 2 * 3 ~ 'b' | 6 / 2 * 3 | 7 % 4 * 2
-n * 2 | 2 * -n | (n) * (m) * 2 | [n * 2, m * 2][1] | {'a': n * 2}['a'] | not n * 0 | n * 2 == 14 and n * 3 > 20 | l[n * 0] | yes * 3 | 1.5e-3 * 2 | 'x' * n if n * 2 > 3 else 'y' * 2
s|trim | s.strip() | s.lstrip() | s.rstrip() | 'xxhixx'.strip('x') | 'xyhixy'.lstrip('yx') | s|trim(' dH') | t.split(',') | t.split(',', 1) | t.rsplit(',', 1) | s.split() | s.split(none, 1) | s.rsplit(none, 1) | ' a  b  c '.split(None, 1) | ' a  b  c '.rsplit(None, 1) | t.split(',')[-1]
'a\nb\r\nc\n'.splitlines() | 'a\nb\n'.splitlines(true) | 'a-b-c'.partition('-') | 'a-b-c'.rpartition('-') | 'abc'.partition('x') | 'abc'.startswith('ab') | 'abc'.startswith(('x', 'a')) | 'abc'.endswith('bc') | 'abc'.startswith('b', 1) | 'aXbX'.replace('X', '-') | 'aXbX'.replace('X', '-', 1) | 'abc'.replace('', '.')
'hello world'.title() | "it's a dog's".title() | 'hELLO'.capitalize() | 'Straße'.upper() | uni.upper() | 'ABC'.lower() | 'aBc'.swapcase() | ', '.join(words) | 'abc'.find('c') | 'abc'.find('z') | 'éabc'.find('b') | 'abcabc'.rfind('b') | 'abc'.index('b') | 'aaa'.count('a') | 'aaa'.count('')
'{} and {}'.format(1, 'x') | '{0}{1}{0}'.format('a', 'b') | '{name}!'.format(name='N') | '{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c') | '{:.2f}'.format(3.14159) | '{:05d}'.format(42) | '{:,}'.format(1234567) | '%s-%d'|format('a', 3) | '%05.1f'|format(2.25) | "%s %s"|format(yes, nil)
'42'.zfill(5) | '-42'.zfill(5) | 'a'.ljust(3) ~ '|' | 'a'.rjust(3, '.') | 'abc'.center(8, '*') | 'ab'.center(5, '*') | 'abc'.isalpha() | 'ab1'.isalnum() | '12'.isdigit() | ' '.isspace() | 'AB'.isupper() | 'ab'.islower() | ''.isalpha() | 'prefix-x'.removeprefix('prefix-') | 'x.txt'.removesuffix('.txt')
s[2:7] | s[-3:] | s[::-1] | s[:-3] | l[1:] | l[::-1] | l[-1] | l[5:] | words[1:][0] | 'héllo'[1] | 'abc'[-1] | l[::2] | l[-2:] | l[:-1] | 'abcdef'[4:1:-1] | l[10] is defined | 'abc'[7] is defined | (1, 2, 3)[1:]
d['items'] | d.items is defined | d.items is mapping | list | d.keys()|list | d.values()|list | d.get('b') | d.get('zz') | d.get('zz', 5) | d.get('a')[1] | d.b | d.zz is defined | d['zz'] is undefined | nested.a.b.c[2].d | d.a|length | 'b' in d | 'zz' not in d | d|length | d|list | d|items|list | d|dictsort | d|first
l|sort | words|sort | words|sort(case_sensitive=true) | words|sort(reverse=true) | rows|sort(attribute='v', reverse=true)|map(attribute='v')|join(',') | rows|map(attribute='k')|join('/') | rows|map(attribute='z.q', default=9)|list | rows|selectattr('z')|list|length | rows|selectattr('k', 'equalto', 'x')|map(attribute='v')|list | rows|rejectattr('k', 'eq', 'x')|list | rows|selectattr('z', 'defined')|list|count | rows|groupby('k')|map('first')|list
l|select('odd')|list | l|reject('odd')|list | l|select('gt', 1)|list | words|map('upper')|list | words|map('replace', 'p', 'P')|join | words|map('length')|list | words|join(', ') | rows|join('-', attribute='v') | l|sum | rows|sum(attribute='v') | l|min | l|max | l|first | l|last | l|reverse|list | 'abc'|reverse | [1, 1, 2, 1]|unique|list | ['a', 'A', 'b']|unique|list | l|batch(2)|list | l|batch(2, 0)|list | l|slice(2)|list | e|first is defined
3 is in nested.a.b['c'] | 'x' is in d['a'] | 1 is in l[1:] | 1 is not in l[:1] | 'o' is in s[2:][1] | l[1:][0:] | l[0:3][1:][0] | l[1:] + l[:1] | l[1:]|length | 'abc'[1:].upper() | d['a'][1:]|first | {'k': l}['k'][1:] | l[{'i': 1}['i']:] | [l[1:], l[:1]] | l[1:] == [1, 2] | words[1:] is sequence | l[1:] is defined | -l[1:][0] | l[n - 6:] ~ l[:-1]
(1, 2, 3)|sum | [[1], [2]]|sum(start=[]) | ((1,), (2,))|sum(start=()) | rows|sum('v', 10) | [0.5, 1]|sum | [yes, 2]|sum | []|sum | ['a']|sum | ['a', 'b']|max | words|min | words|unique|list | '²'.isdigit() | '²'.isdecimal() | '½'.isdigit() | '½'.isnumeric() | '٣'.isdecimal() | 'a1'.isdecimal()
e|default('x') | e|default('x', true) | zz|default('x') | nil|default('x') | nil|d('x', true) | zz is defined | nil is defined | nil is none | zz is none | zz|length | zz or 'y' | nil or 'y' | zz == nil | zz|list | 'x' in zz | zz ~ 'a' | [zz|default(1)] | (zz|default({})).a is defined
'3'|int | 'x'|int | 'x'|int(5) | '3.7'|float | 3.7|int | '0x1f'|int(0, 16) | 3|float | f|round | 2.567|round(2) | 2.5|round|int | -3|abs | 42|string | [1]|string | nil|string | yes|string | 'a b'|wordcount | 'abc'|length | 'abc'|list | 'hello'|upper | 'hello world'|title | 'HELLO'|capitalize | 'a<b>'|safe | 'a<b>'|e | 'x'|center(5)
'a\nb'|indent | 'a\nb'|indent(2, true) | 'a\n\nb'|indent(width=2, blank=true) | 'a\nb'|indent(first=true) | 'a\nb'|indent('> ') | 'aXb'|replace('X', 'Y') | 'aaa'|replace('a', 'b', 2) | 5|replace(5, 6) | d|tojson | d|tojson(indent=2) | d|tojson(ensure_ascii=true) | uni|tojson | uni|tojson(ensure_ascii=true) | d|tojson(separators=(',', ':')) | d|tojson(sort_keys=true) | floats|tojson | []|tojson(indent=2) | {}|tojson(indent=2) | '<&>\''|tojson | '\u2028\x7f'|tojson | [nil, yes, 1]|tojson(indent='\t') | {1: 2, none: 3, true: 4}|tojson | nested|tojson(indent=1) | big|tojson | (1, 2)|tojson | rows|map(attribute='v')|list|tojson | l[1:]|tojson
n is number | n is integer | f is float | f is integer | yes is boolean | yes is number | yes is integer | yes is true | n is true | s is string | n is string | l is sequence | s is sequence | d is sequence | n is sequence | d is mapping | l is mapping | l is iterable | s is iterable | n is iterable | nil is iterable | zz is iterable | d is iterable | n is odd | n is even | n is divisibleby 7 | n is divisibleby(2) | 'abc' is lower | 'ABC' is upper | n is eq 7 | n is ne(7) | n is gt 3 | n is lt(3) | n is in [1, 7] | 'a' is in 'abc' | n is sameas n | nil is sameas none | namespace is callable | n is callable | n is not string | not n is string | n is ge 7 | n is lessthan 8
1 < 2 < 3 | 3 > 2 > 2 | 1 == 1.0 | '1' == 1 | [1] == [1] | (1,) == [1] | d == d | 'a' < 'b' | [1, 2] < [1, 3] | yes == 1 | nil == false | 1 != 2 | l == [3, 1, 2] | 'b' > 'a' and 2 >= 2 | not yes or yes and no | 1 if no | 1 if no else 2 if nil else 3 | (1 if no) is defined | 5 in l | 3 in l | 'pear' in words | 'x' not in 'abc' | nil and zz | e or nil or 'last'
[1] + [2, 3] | l + [4] | 'a' + 'b' | (1,) + (2,) | n + f | n - f | n + 1 ~ 'x' | 'a' 'b' ~ "c" | -5 // 3 | -5 % 3 | 5 % -3 | 7.5 // 2 | 7.5 % 2 | big + 1 | big * 2 | 1_000 | 0x1f | 1.50 | 100000000000000000000 | 5 / 2 * 2 | 2 ** 3 ** 2 | - -5
range(3)|list | range(1, 7, 2)|list | range(3, 0, -1)|list | range(0)|list | range(5)|length | dict(a=1, b='x') | dict([('k', 1)]) | dict(d, c=2)['c'] | l.index(2) | l.count(3) | l|length * 2 | words.index('fig') | (l, d)|length | [l, [1, [2]]] | {'x': l, 'y': {'z': (1, 2)}} | "\u00e9\x41\101" | 'a\'b' | "tab\there" | 'new\nline' | 'back\\slash' | 'un\known' | "%d%%"|format(5)
strftime_now('%d %b %Y') | strftime_now('%A, %B %-d, %Y %H:%M:%S') | strftime_now('%Y-%m-%dT%H:%M:%S.%f') | strftime_now('%j %y %p %I %a %u %w %U %W %e %% %F %T %D') | strftime_now('%c|%x|%X|%Q')
s.foo is defined | s.foo | n.foo is defined | d.foo.bar | zz.foo | nil.foo | nil.foo is defined | zz() | s.nope() | l.append(1) | d.update({}) | nil|length | n|length | [1] + 2 | 'a' + 1 | 1 + nil | l|tojson(3, 2) | zz|tojson | '' | unknown_filter | raise_exception('No: ' ~ n) | 1 / 0 | 'a' - 'b' | d|join(',') | n|join | {}[[]] | range(10 ** 9)|length | [1, 2]|map('nope')|list
d.pop('b') | ''.join([1]) | int('3') | words|sort(attribute='x')|length | l.sort() | d.items()|list | d.items()|first | d.items()|map('first')|list | (d.items()|list)[0][0] | d.copy() == d | words|map('first')|join | rows|map(attribute='k')|unique|sort|join | rows|map('tojson')|join(';') | rows|selectattr('v', 'gt', 1)|map(attribute='v')|sum | words|select('in', ['fig', 'pear'])|list | words|select('string')|list|length | rows[0].z.q | rows[-1]['k'] | rows|length|string + '!' | 'é'|length | '🙂'[0] | 'a🙂b'[1:] | '🙂'|tojson(ensure_ascii=True) | s|lower|trim|replace('hello', 'bye')|capitalize | (s|trim).split(', ')|last|upper | ' ' in s | s.strip()[0]|lower | [s.strip(), 1]|join('=')
"""

STATEMENTS = [
    "{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% endfor %}",
    "{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
    "{% for x in [1,1,2] %}{{ loop.changed(x) }}{{ loop.cycle('a','b') }}{{ loop.depth }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for c in 'abc' %}{{ c }}.{% endfor %}",
    "{% for x in [] %}x{% else %}none{% endfor %}", "{% for x in zz %}x{% else %}none{% endfor %}", 
    "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{% endfor %}", "{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in [[1, 2], [3, 4]] %}{{ a * b }}{% endfor %}",
    "{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(x=1, l=[]) %}{% for i in l %}{% set ns.x = ns.x + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.x }}{{ ns.l }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b is defined }}", "{% set ns = namespace({'a': 5}, b=6) %}{{ ns.a }}{{ ns.b }}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}{{ x|length }}", "{% set x | upper %}abc{% endset %}{{ x }}", "{% set a, b = 1, 'z' %}{{ a }}{{ b }}", "{% set a = b = 3 %}{{ a }}", "{% set t = (1, 2) %}{{ t }}", "{% set t = 1, 2 %}{{ t }}",
    "{% if n > 5 %}A{% elif n > 3 %}B{% else %}C{% endif %}", "{% if zz %}A{% elif not zz %}B{% endif %}", "{% if l and d and not e %}ok{% endif %}",
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, c=3) }}|{{ m(b=5, a=4) }}|{{ m() }}", "{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(4) }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}", "{% macro m() %}[{{ caller(3) }}]{% endmacro %}{% call(x) m() %}in{{ x * 2 }}{% endcall %}", "{% macro m(a) %}{{ n }}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(1) }}",
    "{% set n = 9 %}{% macro m() %}{{ n }}{% endmacro %}{{ m() }}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% filter upper %}abc{{ e }}d{% endfilter %}", "{% filter replace('a', 'b') | upper %}aa{% endfilter %}",
    "{% raw %}{{ not }} {% this %}{% endraw %}", "{%- raw -%} {{ x }} {%- endraw -%} ", "{# comment #}a{#- c -#} b", "a {#- {{ x }} -#} b", "{% for x in l recursive %}{{ x }}{% endfor %}", "{% for r in [{'c': [{'c': []}]}] recursive %}<{{ loop.depth }}{{ loop(r.c) }}>{% endfor %}",
    "  {% if yes %}\n  x\n  {% endif %}\ny\n", "  {%+ if yes %}\n  x{% endif %}\n\n", "a\n{%- if yes -%}\n  b  \n{%- endif -%}\n c", "{{ n }}\n{{ n }}\n", "{{- n -}} \n x", "a  {{- n }} b", "\n{% set x = 1 %}\n{{ x }}\n\n", "{% if yes %}a\n{% endif %}\n\n", "a\r\n{% if yes %}\r\nb\r\n{% endif %}\r\n",
    "{% generation %}a{% endgeneration %}b", "x\n  {%- generation -%}\n a \n {%- endgeneration %}\n b", "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x is defined }}", "{% for m in l %}{% generation %}{{ m }}{{ loop.last }}{% endgeneration %}{% endfor %}",
    "{{ '}}' }}{{ '%}' }}{{ \"{{ '{%' }}\" }}", "{{ {'a': {'b': 1}}['a']['b'] }}", "{{ {'a': {'b': 1}} }}", "{{ [[1, 2], [3]][0][1] * 2 }}", "{{ ([1, 2] * 2)|length }}", "{% set x = [1, 2] * 2 %}{{ x }}", "{% set x = n * 2 if yes else n * 3 %}{{ x }}", "{% if n * 2 > 10 and m * 2 < 0 %}y{% endif %}", "{% for i in range(n * 2 - 10) %}{{ i * i }}{% endfor %}",
    "{{ d.items()|list|length * 2 ~ 'x' }}", "{{ (n * 2)|string * 2 }}", "{{ 'a' if n * 2 == 14 else 'b' }}", "{{ dict(a=n * 2, b=[m * 2]) }}", "{% macro m(a=2 * 3, b=[1]) %}{{ a }}{{ b }}{% endmacro %}{{ m() }}", "{{ namespace(a=2 * 2).a }}", "{{ [1,\n 2]|length }}", "{{ 1 }}{{ 'x' }}{{- 'y' -}}{{ 'z' }}",
    "{% set x = {'a': [1, {'b': 2}]} %}{{ x.a[1].b }}{{ x }}", "{% set x = 'a' %}{% if yes %}{% set x = 'b' %}{% endif %}{{ x }}", "{% for i in [1, 2] %}{% for j in [1, 2] %}{{ i * j }}{% if j == 1 %}{% continue %}{% endif %};{% endfor %}{% endfor %}", "{% for g in rows|groupby('k') %}{{ g.grouper }}:{{ g.list|length }} {% endfor %}", "{% for k, g in rows|groupby('k') %}{{ k }}{{ g|map(attribute='v')|list }}{% endfor %}",
    "{% for message in rows[::-1] %}{{ message.v }}{% endfor %}", "{% for x in l|reverse %}{{ x }}{% endfor %}", "{% for x in l[1:] %}{{ loop.index }}{{ loop.length }}{% endfor %}", "{% set ns = namespace(found=false) %}{% for r in rows %}{% if r.v == 2 %}{% set ns.found = true %}{% break %}{% endif %}{% endfor %}{{ ns.found }}",
    "{% unknown %}", "{{ n ", "{% if %}{% endif %}", "{{ 'a' 1 }}", "{% for x in l %}", "{{ [1, }}", "{% include 'x' %}", "{{ raise_exception('stop') }}", "{% if not yes %}{{ raise_exception('x') }}{% endif %}ok", "{% set x = 5 %}{% set y = x * 2 %}{{ y - x }}",
]


def main():
    templates = {path.stem: path.read_text() for path in sorted((HERE / "templates").glob("*.jinja"))}
    conversations = []
    for name, source in templates.items():
        for conversation, messages in CONVERSATIONS.items():
            for extra in (
                {},
                {"add_generation_prompt": True, "tools": TOOLS},
                {"add_generation_prompt": True, "enable_thinking": False, "documents": DOCUMENTS, "date_string": "1 Jan 2000"},
            ):
                # Arguments as a text, for the template that only puts texts together.
                given = json.loads(json.dumps(messages))
                if name == "markers":
                    for c in (c for m in given for c in m.get("tool_calls", [])):
                        c["function"]["arguments"] = json.dumps(c["function"]["arguments"])
                variables = {**COMMON, "messages": given, **extra}
                conversations.append({"template": name, "conversation": conversation, "extra": sorted(extra), **render(source, variables)})
    snippets = [{"source": s, **render(s, VARIABLES)} for s in STATEMENTS]
    for line in EXPRESSIONS.strip().split("\n"):
        # " | " separates expressions; a filter's bar has no space before a name that begins one.
        for expression in line.split(" | "):
            source = "{{ " + expression + " }}"
            snippets.append({"source": source, **render(source, VARIABLES)})
    golden = {
        "now": NOW, "variables": VARIABLES, "snippets": snippets, "conversations": conversations, "common": COMMON,
        "messages": CONVERSATIONS, "extras": {"tools": TOOLS, "documents": DOCUMENTS, "add_generation_prompt": True, "enable_thinking": False, "date_string": "1 Jan 2000"},
    }
    (HERE / "goldens.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")))


main()
