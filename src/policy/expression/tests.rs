use super::super::tests::request;
use super::*;

/// Whether the rule holds; the error is one of reading or of evaluation.
fn holds(rule: &str, value: &str) -> Result<bool, String> {
    Expression::compile(rule)?.holds(value, &request())
}

fn refused(rule: &str) -> String {
    Expression::compile(rule)
        .err()
        .unwrap_or_else(|| panic!("{rule} is read"))
}

#[test]
fn functions_mean_what_they_mean_to_approver_policy() {
    for (rule, value, expected) in [
        ("size(self) == 1", "é", true),
        ("self.size() == 2", "é𝄞", true),
        (
            "size(['a', 'b']) == 2 && [1].size() == 1 && size([]) == 0",
            "",
            true,
        ),
        (r"self.matches('^\\w+$')", "é", false),
        (r"self.matches(r'^\d+$')", "٣", false),
        (r"matches(self, r'^\s$')", "\u{a0}", false),
        ("self.matches('^' + cr.namespace + '$')", "treasury", true),
        (r#"!self.contains('\"')"#, "a\"b", false),
        (r#"self == '\"'"#, "\"", true),
        (r#"self == "\'""#, "'", true),
        (r"self == r'\'", "\\", true),
        ("self.split('') == ['a', 'é']", "aé", true),
        ("self.split('') == []", "", true),
        ("self.split('.') == ['']", "", true),
        ("self.split('', 2) == ['a', 'bc']", "abc", true),
        ("self.split('.', 0) == []", "a.b", true),
        ("self.split('.', 1) == ['a.b']", "a.b", true),
        ("self.split('.', 2) == ['a', 'b.c']", "a.b.c", true),
        ("self.split('.', -1) == ['a', 'b', 'c']", "a.b.c", true),
        ("self.lastIndexOf('b', 9) == -1", "ab", true),
        ("self.lastIndexOf('b', 0) == -1", "ab", true),
        ("self.lastIndexOf('b') == 2", "éab", true),
        ("self.lastIndexOf('é') == 2", "éaé", true),
        ("self.lastIndexOf('') == 3", "éab", true),
        ("self.indexOf('b') == 2", "éab", true),
        ("self.indexOf('b', 9) == -1", "ab", true),
        ("self.indexOf('', 9) == 9", "ab", true),
        ("self.replace('a', 'b', -1) == 'bbb'", "aaa", true),
        ("self.replace('a', 'b', 0) == 'aaa'", "aaa", true),
        ("self.replace('a', 'b', 2) == 'bba'", "aaa", true),
        ("self.replace('', '-') == '-é-a-'", "éa", true),
        (
            "self.substring(1) == 'ab' && self.substring(0, 1) == 'é'",
            "éab",
            true,
        ),
        ("self.charAt(0) == 'é' && self.charAt(2) == ''", "éa", true),
        (
            "self.lowerAscii() == 'aÉ' && self.upperAscii() == 'AÉ'",
            "aÉ",
            true,
        ),
        ("self.trim() == 'a'", "\u{a0}a\t", true),
        ("self.reverse() == 'éa'", "aé", true),
        (
            "self.split('.').join() == 'ab' && ['x'].join('-') == 'x'",
            "a.b",
            true,
        ),
        (
            "int(self) == -7 && string(7) == '7' && string(true) == 'true'",
            "-7",
            true,
        ),
        ("bool('T') && !bool('false')", "", true),
    ] {
        assert_eq!(holds(rule, value), Ok(expected), "{rule} of {value:?}");
    }
}

#[test]
fn what_is_out_of_range_is_an_error_and_no_answer() {
    for (rule, value) in [
        ("self.lastIndexOf('b') == -1", ""),
        ("self.lastIndexOf('b', -1) == -1", "ab"),
        ("self.indexOf('b', -1) == -1", "ab"),
        ("self.charAt(3) == ''", "ab"),
        ("self.charAt(-1) == ''", "ab"),
        ("self.substring(3) == ''", "ab"),
        ("self.substring(2, 1) == ''", "ab"),
        ("self.split('.')[1] == ''", "ab"),
        ("self.split('.')[-1] == ''", "ab"),
        ("int(self) == 0", "x"),
        ("bool(self)", "yes"),
        ("1 / size(self) == 0", ""),
        ("9223372036854775807 + size(self) > 0", "a"),
        ("self.matches(self)", "("),
    ] {
        assert!(holds(rule, value).is_err(), "{rule} of {value:?}");
    }
}

#[test]
fn an_error_is_swallowed_where_the_other_side_decides() {
    let error = "self.charAt(9) == ''";
    for (rule, expected) in [
        (format!("{error} || true"), true),
        (format!("true || {error}"), true),
        (format!("{error} && false"), false),
        (format!("false && {error}"), false),
        ("['a', 'bb'].exists(x, x.charAt(2) == '')".to_owned(), true),
        ("['a', 'bb'].all(x, x.charAt(2) == 'x')".to_owned(), false),
    ] {
        assert_eq!(holds(&rule, "a"), Ok(expected), "{rule}");
    }
    for rule in [
        format!("{error} || false"),
        format!("{error} && true"),
        format!("{error} ? true : true"),
        format!("!({error})"),
        "['a'].exists(x, x.charAt(2) == '')".to_owned(),
        "size(['a', 'bb'].map(x, x.charAt(2))) == 2".to_owned(),
        "size(['a', 'bb'].filter(x, x.charAt(2) == '')) == 1".to_owned(),
    ] {
        assert!(holds(&rule, "a").is_err(), "{rule}");
    }
}

#[test]
fn lists_are_walked_over() {
    for (rule, expected) in [
        ("self.split('.').all(p, size(p) < 4)", true),
        ("self.split('.').exists(p, p == 'svc')", true),
        ("self.split('.').exists_one(p, p == 'a')", false),
        (
            "self.split('.').map(p, p.upperAscii()) == ['A', 'A', 'SVC']",
            true,
        ),
        ("self.split('.').map(p, p != 'a', size(p)) == [3]", true),
        ("self.split('.').filter(p, p != 'svc') == ['a', 'a']", true),
        ("[1, 2].all(x, [x, 3].exists(y, y > x || x == 2))", true),
        ("[].all(x, false) && ![].exists(x, true)", true),
        ("'a' in self.split('.') && !('b' in ['a'])", true),
        ("['x'].all(self, self == 'x')", true),
        (
            "'server auth' in usages && !('email protection' in usages)",
            true,
        ),
        (
            "usages.all(usage, size(usage) > 3) && usages.size() == 3",
            true,
        ),
    ] {
        assert_eq!(holds(rule, "a.a.svc"), Ok(expected), "{rule}");
    }
}

#[test]
fn operators_bind_and_compare_as_in_cel() {
    for rule in [
        "1 + 2 * 3 == 7 && -7 / 2 == -3 && -7 % 2 == -1 && 7 - 2 - 1 == 4",
        "'a' < 'b' && 'Z' < 'a' && 'é' > 'z' && !(true < false) && 2 >= 2",
        "true ? true : false ? false : false",
        "['a'] + [] == ['a'] && 'a' + 'b' == 'ab'",
        "!!true && ! ! !false",
        "true // a comment with ' in it",
        "0x10 == 16",
        "self == '''x''' && self == \"\"\"x\"\"\"",
    ] {
        assert_eq!(holds(rule, "x"), Ok(true), "{rule}");
    }
}

#[test]
fn what_does_not_fit_is_refused_when_it_is_read_and_named() {
    for (rule, named) in [
        ("size(self)", "gives a int"),
        ("cr.username == 'x'", "cr.username is not supported"),
        ("cr.groups == 'x'", "cr.groups does not exist"),
        ("cr.spec.username == 'x'", "has no fields"),
        (
            "serviceaccount.getName(cr.name) == 'x'",
            "serviceaccount.getName() is not supported",
        ),
        (
            "serviceAccount('x') == 'x'",
            "serviceAccount() is not supported",
        ),
        ("type(self) == string", "type() is not supported"),
        ("string == string", "\"string\" is not a variable"),
        ("type(self) == type('')", "type() is not supported"),
        ("dyn(self) == 'x'", "dyn() is not supported"),
        ("self.startWith('x')", "startWith() does not exist"),
        ("self.startsWith('x', 'y')", "startsWith(string, string)"),
        ("startsWith(self, 'x')", "startsWith"),
        ("ip(self).isLoopback()", "ip() does not exist"),
        ("'%d'.format([1]) == '1'", "format() is not supported"),
        ("has(cr.name)", "has() is not supported"),
        ("unknown == self", "\"unknown\" is not a variable"),
        ("cr == cr", "cr is not a value"),
        ("self == 1", "_==_ is not defined for string and int"),
        ("self < 1", "_<_"),
        ("self + 1 == ''", "_+_"),
        ("self && true", "_&&_"),
        ("!self", "!_"),
        ("self ? true : false", "_?_:_"),
        ("true ? 1 : 'a'", "_?_:_"),
        ("[1, 'a'] == []", "a list of int and string"),
        ("1 in ['a']", "@in"),
        ("self[0] == 'a'", "_[_]"),
        ("self.all(c, true)", "cannot be walked over"),
        ("[1].all(namespace, true)", "cannot be the name"),
        ("[1].all(x, 1)", "_&&_"),
        ("1.5 > 1.0", "fraction"),
        (".5 > 1.0", "dot"),
        (".self == 'x'", "dot"),
        ("1u == 1u", "sign"),
        ("b'a' == b'a'", "octets"),
        ("null == null", "null"),
        ("{'a': 1}.size() == 1", "maps"),
        ("self.matches('(')", "( without a )"),
        (r"self.matches(r'\pL')", "not supported"),
        ("--1 == 1", "stands twice"),
        ("self ==", "Syntax error"),
        ("", "Syntax error"),
    ] {
        let error = refused(rule);
        assert!(error.contains(named), "{rule}: {error}");
    }
}

#[test]
fn rules_that_would_exhaust_the_stack_are_refused() {
    assert!(refused(&"(".repeat(900)).contains("brackets"));
    assert!(refused(&"1 in[1]".repeat(300)).contains("operators"));
    let walks = "[1].all(a, [1].all (b, [1]. all(c, true)))";
    assert!(refused(walks).contains("walks"));
    assert!(refused(&"x".repeat(4_097)).contains("4096"));
}

#[test]
fn the_largest_rules_that_are_let_through_do_no_harm() {
    let open = |text: &str| text.repeat(LIMITS.nesting);
    for (rule, value) in [
        (format!("{}true{}", open("("), open(")")), "x"),
        (format!("1{} > 1", "+1".repeat(LIMITS.operators - 1)), "x"),
        (
            format!("true{}", " && true".repeat(LIMITS.operators / 2)),
            "x",
        ),
        (
            format!(
                "{}true",
                "self == 'y' ? true : ".repeat(LIMITS.operators / 4)
            ),
            "x",
        ),
        (
            format!(
                "self{} == 'x'",
                ".lowerAscii()".repeat(LIMITS.operators - 2)
            ),
            "x",
        ),
    ] {
        assert_eq!(holds(&rule, value), Ok(true), "{rule}");
    }
    // What grows or walks without end is an error.
    let grows = format!("self{} == ''", ".replace('', self)".repeat(20));
    assert!(holds(&grows, "0123456789").unwrap_err().contains("grows"));
    let long = "a".repeat(5_000);
    let walks = "self.split('').all(x, self.split('').all(y, x == y))";
    assert!(holds(walks, &long).unwrap_err().contains("steps"));
}
