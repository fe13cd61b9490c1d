//! What a command becomes with its arguments, held against GNU parallel's manual; `tests/e2e/arguments.rs` asks the
//! program itself.

use super::*;
use proptest::prelude::*;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn filled(words: &[&str], arguments: &[&str]) -> Result<TaskSpec, TemplateError> {
    let template = Template::parse(&strings(words), false)?;
    let template = template.for_arguments(arguments.len())?;
    template.fill(&strings(arguments), 7)
}

#[track_caller]
fn argv(words: &[&str], arguments: &[&str], expected: &[&str]) {
    let spec = filled(words, arguments).expect("a good command");
    assert_eq!((spec.shell, spec.args), (false, strings(expected)));
}

#[track_caller]
fn line(words: &[&str], arguments: &[&str], expected: &str) {
    let spec = filled(words, arguments).expect("a good command");
    assert_eq!((spec.shell, spec.args), (true, strings(&[expected])));
}

#[track_caller]
fn refused(words: &[&str], arguments: &[&str], parts: &[&str]) {
    let error = filled(words, arguments)
        .expect_err("must be refused")
        .to_string();
    for part in parts {
        assert!(error.contains(part), "`{error}` lacks `{part}`");
    }
}

#[test]
fn every_placeholder_is_replaced_inside_its_word() {
    argv(&["echo", "{}"], &["a/b.c"], &["echo", "a/b.c"]);
    argv(
        &["x", "{.}", "{/}", "{//}", "{/.}", "{#}"],
        &["d/b.tar.gz"],
        &["x", "d/b.tar", "b.tar.gz", "d", "b.tar", "7"],
    );
    argv(
        &["cp", "{}", "out/{/.}.bak"],
        &["d/b.c"],
        &["cp", "d/b.c", "out/b.bak"],
    );
    argv(&["{1}", "{2/}-{1.}"], &["a.x", "c/d"], &["a.x", "d-a"]);
    argv(&["--{#}={}"], &["v"], &["--7=v"]);
}

#[test]
fn several_arguments_are_several_words_where_they_stand_alone() {
    argv(&["echo", "{}"], &["a b", "c"], &["echo", "a b", "c"]);
    argv(&["echo", "{/}"], &["x/a", "y/c"], &["echo", "a", "c"]);
    argv(&["echo", "<{}>"], &["a b", "c"], &["echo", "<a b c>"]);
}

#[test]
fn a_template_without_placeholder_gets_the_arguments_at_its_end() {
    argv(&["gzip", "-9"], &["a b"], &["gzip", "-9", "a b"]);
    argv(&["echo"], &["a", "b"], &["echo", "a", "b"]);
    line(&["wc -l |"], &["a b"], "wc -l | 'a b'");
    argv(&["awk", "{print $1}"], &["f"], &["awk", "{print $1}", "f"]);
}

#[test]
fn an_argument_stays_one_word_whatever_is_in_it() {
    for argument in [
        "a b",
        "it's \"x\"",
        "-rf",
        "a\nb",
        "$(id)",
        "{} {1}",
        "*",
        "",
    ] {
        argv(&["rm", "{}"], &[argument], &["rm", argument]);
    }
}

#[test]
fn one_word_that_is_no_plain_name_is_a_shell_line_with_quoted_arguments() {
    line(
        &["sort {} | uniq > {.}.u"],
        &["a b.txt"],
        "sort 'a b.txt' | uniq > 'a b'.u",
    );
    line(
        &["echo '{}' \"{}\""],
        &["it's $x"],
        r#"echo 'it'\''s $x' "it's \$x""#,
    );
    line(&["echo {} {}"], &["a b", "c"], "echo 'a b' c 'a b' c");
    line(&["echo \\{} {#}"], &["a"], "echo \\{} 7");
    argv(&["./run-{1}.sh"], &["a b"], &["./run-a b.sh"]);
    // A name with a blank needs a second word to be a name.
    argv(&["./my tool", "{}"], &["a"], &["./my tool", "a"]);
}

#[test]
fn the_script_of_a_shell_is_a_shell_line_too() {
    argv(
        &["sh", "-c", "echo {} | wc"],
        &["a; rm -rf ~"],
        &["sh", "-c", "echo 'a; rm -rf ~' | wc"],
    );
    argv(
        &[
            "timeout",
            "5",
            "/bin/bash",
            "-o",
            "pipefail",
            "-ec",
            "f '{}'",
            "{}",
        ],
        &["it's"],
        &[
            "timeout",
            "5",
            "/bin/bash",
            "-o",
            "pipefail",
            "-ec",
            r"f 'it'\''s'",
            "it's",
        ],
    );
    argv(
        &["sh", "-c", "echo \"$1\"", "sh", "{}"],
        &["$x"],
        &["sh", "-c", "echo \"$1\"", "sh", "$x"],
    );
    argv(
        &["bash", "x.sh", "-c", "<{}>"],
        &["a b"],
        &["bash", "x.sh", "-c", "<a b>"],
    );
    argv(
        &["python3", "-c", "print({})"],
        &["1"],
        &["python3", "-c", "print(1)"],
    );
}

#[test]
fn the_shell_option_joins_words_into_a_line() {
    let words = strings(&["echo", "{}", ">", "{.}.out"]);
    let template = Template::parse(&words, true).unwrap();
    let spec = template.fill(&strings(&["a b.c"]), 1).unwrap();
    assert_eq!(
        (spec.shell, spec.args),
        (true, strings(&["echo 'a b.c' > 'a b'.out"]))
    );
}

#[test]
fn without_a_command_each_argument_is_a_shell_line() {
    line(&[], &["echo a | wc"], "echo a | wc");
    line(&["{}"], &["echo a"], "echo a");
    refused(&[], &["a", "b"], &["there are 2", "name a command"]);
}

#[test]
fn unbalanced_placeholders_are_refused() {
    for word in ["{1", "{.", "{/", "{#", "x{1 y", "{1{2}"] {
        refused(
            &["echo", word, "{}"],
            &["a"],
            &["begins a placeholder", "`{}`"],
        );
    }
    for word in ["{", "a}", "{a", "}{"] {
        refused(
            &["echo", word],
            &["a"],
            &[word, "without its partner", "`{}`"],
        );
        argv(&["echo", word, "{}"], &["a"], &["echo", word, "a"]);
    }
}

#[test]
fn braces_that_are_no_placeholder_are_text() {
    for word in [
        "{print $1}",
        "{\"a\": {}}",
        "a{2,3}",
        "{a}",
        "${1}",
        "{{a}}",
        "{1.5}",
        "{ }",
    ] {
        let spec = filled(&["x", word, "{1}"], &["A"]).unwrap();
        assert_eq!(spec.args[1], word.replace("{}", "A"));
    }
}

#[test]
fn a_position_that_no_source_fills_is_refused() {
    refused(
        &["echo", "{3}"],
        &["a", "b"],
        &["`{3}`", "2 arguments", "give it as an argument"],
    );
    refused(&["echo", "{0}"], &["a"], &["`{0}`", "one argument"]);
    refused(&["echo", "{2/.}"], &["a"], &["argument 2"]);
    refused(
        &["echo", "{99999999999999999999999}"],
        &["a"],
        &["one argument"],
    );
}

#[test]
fn placeholders_that_only_parallel_has_are_told_with_a_way_round() {
    refused(&["echo", "{%}"], &["a"], &["`{%}`", "MITO_WORKER_ID"]);
    refused(&["echo", "{##}"], &["a"], &["`{##}`"]);
    refused(&["echo", "{-1}"], &["a"], &["`{-1}`", "`{1}`"]);
    refused(&["echo", "{= s/a/b/ =}"], &["a"], &["sed"]);
}

#[test]
fn a_place_without_safe_quoting_is_told_with_a_way_round() {
    refused(
        &["echo `basename {}`"],
        &["a"],
        &["backquotes", "x={}; … \"$x\""],
    );
    refused(
        &["sh", "-c", "echo \"$(f {/})\""],
        &["a"],
        &["`$(`", "x={/}"],
    );
    line(
        &["x={}; echo `basename \"$x\"`"],
        &["a b"],
        "x='a b'; echo `basename \"$x\"`",
    );
}

#[test]
fn arithmetic_takes_numbers_and_says_so() {
    line(&["echo $(( {} % 3 ))"], &["4"], "echo $(( 4 % 3 ))");
    line(
        &["echo \"$(({1}+1)) {1}\""],
        &["-4"],
        "echo \"$((-4+1)) -4\"",
    );
    refused(
        &["echo $(( {} % 3 ))"],
        &["a[$(id)]"],
        &["`a[$(id)]`", "arithmetic", "variable"],
    );
}

#[test]
fn a_here_document_holds_any_argument_but_one_that_ends_it() {
    line(&["cat <<E\n{}\nE"], &["$a"], "cat <<E\n\\$a\nE");
    refused(&["cat <<'E'\n{}\nE"], &["x\nE\nid"], &["here-document"]);
}

#[test]
fn another_text_may_stand_for_the_argument() {
    let filled = |words: &[&str], replace: &str| {
        let template = Template::parse_with(&strings(words), false, Some(replace)).unwrap();
        let template = template.for_arguments(1).unwrap();
        template.fill(&strings(&["a b.c"]), 7).unwrap().args
    };
    assert_eq!(
        filled(&["echo", "{}", "%x%", "{.}{#}"], "%"),
        ["echo", "{}", "a b.cxa b.c", "a b7"]
    );
    assert_eq!(filled(&["echo @ {} | cat"], "@"), ["echo 'a b.c' {} | cat"]);
    assert_eq!(filled(&["REPL"], "REPL"), ["a b.c"]);
}

#[test]
fn columns_may_have_names() {
    let columns = strings(&["in", "out", ""]);
    let named = |words: &[&str]| {
        let template = Template::parse(&strings(words), false).unwrap();
        let template = template.named(&columns).unwrap().for_arguments(3).unwrap();
        template
            .fill(&strings(&["a b.c", "d", "e"]), 7)
            .unwrap()
            .args
    };
    assert_eq!(
        named(&["cp", "{in}", "{in.}-{out}", "{other}", "{2}", "${in}"]),
        ["cp", "a b.c", "a b-d", "{other}", "d", "${in}"]
    );
    assert_eq!(named(&["cat < {in} | wc"]), ["cat < 'a b.c' | wc"]);
    let unclear = Template::parse(&strings(&["echo `cat {in}`"]), false).unwrap();
    assert!(unclear.named(&columns).is_err());
}

#[test]
fn paths_are_taken_apart_as_parallel_does() {
    let forms = |path: &str| {
        [
            Form::NoExtension,
            Form::BaseName,
            Form::Directory,
            Form::BaseNoExtension,
        ]
        .map(|form| form.of(path))
    };
    assert_eq!(forms("a/b.c/d"), ["a/b.c/d", "d", "a/b.c", "d"]);
    assert_eq!(forms("a.tar.gz"), ["a.tar", "a.tar.gz", ".", "a.tar"]);
    assert_eq!(forms(".bashrc"), ["", ".bashrc", ".", ""]);
    assert_eq!(forms("/a"), ["/a", "a", "/", "a"]);
    assert_eq!(forms("a//b/"), ["a//b/", "", "a", ""]);
    assert_eq!(forms("/"), ["/", "", "/", ""]);
    assert_eq!(forms(""), ["", "", ".", ""]);
    assert_eq!(forms("a."), ["a", "a.", ".", "a"]);
}

proptest! {
    #[test]
    fn no_command_makes_the_reader_fail(words in proptest::collection::vec("[{}1./#a'\"$\\\\ `(]{0,8}", 0..4)) {
        if let Ok(template) = Template::parse(&words, false)
            && let Ok(template) = template.for_arguments(1)
        {
            prop_assert!(template.has_placeholder());
            prop_assert!(!template.fill(&strings(&["x"]), 1).unwrap().args.is_empty());
        }
    }

    #[test]
    fn without_a_shell_the_argument_arrives_byte_for_byte(argument in "\\PC*", before in "[a-z=-]*", after in "[a-z.]*") {
        let words = vec!["x".to_owned(), format!("{before}{{}}{after}")];
        let template = Template::parse(&words, false).unwrap();
        let spec = template.fill(std::slice::from_ref(&argument), 1).unwrap();
        prop_assert_eq!(&spec.args[1], &format!("{before}{argument}{after}"));
    }
}
