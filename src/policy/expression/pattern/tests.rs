use super::*;

#[test]
fn a_pattern_means_what_it_means_to_re2() {
    for (pattern, text, expected) in [
        (r"^\w+$", "é", false),
        (r"^\w+$", "a_9", true),
        (r"^\W$", "é", true),
        (r"^\d$", "٣", false),
        (r"^\s$", "\u{a0}", false),
        (r"^\s$", "\u{b}", false),
        (r"^[\s]$", " ", true),
        (r"^[^\w]$", "é", true),
        (r"^[[:space:]]$", "\u{b}", true),
        (r"^[[:^digit:]]$", "é", true),
        (r"a\b", "aé", true),
        ("^a{,2}$", "a{,2}", true),
        ("^a{2}$", "aa", true),
        ("^a{02}$", "a{02}", true),
        ("^{$", "{", true),
        ("^[]a]$", "]", true),
        ("^[a&&b]$", "&", true),
        ("^[a[b]$", "[", true),
        ("^[a-]$", "-", true),
        (r"^\<\_$", "<_", true),
        (r"^\Qa.b\E+$", "a.bb", true),
        (r"^\Qa.b\E$", "axb", false),
        (r"^\x41\x{42}\103\0$", "ABC\0", true),
        ("(?i)^k$", "\u{212a}", true),
        ("(?i)^ab|C$", "c", true),
        ("(?P<a>x)(?<b>y)", "xy", true),
        ("(?s)^.$", "\n", true),
        ("^.$", "\n", false),
        ("a$", "a\n", false),
        ("(?m)a$", "a\n", true),
        ("x*", "", true),
        ("(|a)+", "", true),
        ("é+", "éé", true),
    ] {
        let compiled = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        assert_eq!(compiled.is_match(text), expected, "{pattern} {text:?}");
    }
}

#[test]
fn what_re2_does_not_know_or_is_not_supported_is_refused() {
    for pattern in [
        "a**",
        "a+*",
        "a{2}{3}",
        "*a",
        "(*)",
        "|*",
        "a{1001}",
        "a{2,1}",
        "(a{100}){100}",
        "((a{10}){10}){11}",
        "(",
        ")",
        "[",
        "[]",
        "[b-a]",
        r"\q",
        r"\8",
        r"\1",
        r"\é",
        r"\B",
        r"\C",
        r"\pL",
        r"[\pL]",
        r"\p{Greek}",
        "(?x)a",
        "(?P=a)",
        "(?<a>x)(?<a>y)",
        "(?=a)",
        "(?:a",
        r"[\b]",
        "[[:alfa:]]",
        r"[a-\d]",
        r"\x{110000}",
        r"\x4",
        r"\",
        "(?i-)a",
    ] {
        assert!(compile(pattern).is_err(), "{pattern}");
    }
    assert!(compile(&"a".repeat(PATTERN_MAX_BYTES + 1)).is_err());
    assert!(compile(&"(".repeat(NESTING_MAX + 1)).is_err());
}
