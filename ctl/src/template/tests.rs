//! Templates as they are used, each with what Go's engine prints for it.

use super::*;

fn container() -> Value {
    let map = |pairs: &[(&str, Value)]| {
        Value::Map(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    };
    let binding = record([("HostIp", "0.0.0.0".into()), ("HostPort", "8000".into())]);
    record([
        ("Id", "0123456789abcdef".into()),
        ("Name", "/web".into()),
        ("Args", vec!["-m", "http.server"].into()),
        (
            "State",
            record([
                ("Status", "running".into()),
                ("Running", true.into()),
                ("Pid", 42_u32.into()),
            ]),
        ),
        ("Labels", map(&[("a.b", "1".into()), ("tier", "front".into())])),
        ("Ports", map(&[("8000/tcp", Value::List(vec![binding])), ("9000/udp", Value::Null)])),
        ("Empty", Value::List(Vec::new())),
        ("Nothing", Value::Null),
        ("Ratio", Value::Float(0.5)),
        ("ID", hidden("0123")),
        ("Health", hidden(Value::Null)),
        ("Label", Value::Lookup(Lookup::In([("tier".to_owned(), "front".to_owned())].into()))),
    ])
}

fn rendered(text: &str) -> Result<String, TemplateError> {
    Template::parse(text)?.render(&container())
}

#[test]
fn templates_print_what_go_prints() {
    for (template, want) in [
        ("", ""),
        ("plain", "plain"),
        ("{{.Name}}", "/web"),
        ("{{.State.Pid}} {{ .State.Running }}", "42 true"),
        ("{{$.Name}}", "/web"),
        ("{{json .State}}", r#"{"Status":"running","Running":true,"Pid":42}"#),
        ("{{json .Args}} {{json .Nothing}}", r#"["-m","http.server"] null"#),
        ("{{.State}}", "{running true 42}"),
        ("{{.Args}}", "[-m http.server]"),
        ("{{.Labels}}", "map[a.b:1 tier:front]"),
        ("{{.Labels.tier}} {{.Labels.none}}", "front <no value>"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Label \"tier\"}}|{{.Label \"none\"}}", "front|"),
        ("{{len .Args}} {{len .Labels}} {{len .Name}}", "2 2 4"),
        ("{{index .Args 1}}", "http.server"),
        ("{{index .Labels \"a.b\"}}|{{index .Labels \"none\"}}", "1|"),
        ("{{(index (index .Ports \"8000/tcp\") 0).HostPort}}", "8000"),
        ("{{(index .Ports \"8000/tcp\" 0).HostIp}}", "0.0.0.0"),
        ("{{slice .Id 0 12}}", "0123456789ab"),
        ("{{range .Args}}<{{.}}>{{end}}", "<-m><http.server>"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}} {{end}}", "0=-m 1=http.server "),
        ("{{range $p, $b := .Ports}}{{$p}} {{end}}", "8000/tcp 9000/udp "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{range .Args}}{{break}}x{{end}}", ""),
        ("{{range .Args}}{{if eq . \"-m\"}}{{continue}}{{end}}{{.}}{{end}}", "http.server"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Empty}}a{{else if .Nothing}}b{{else}}c{{end}}", "c"),
        ("{{if and .State.Running (eq .State.Pid 42)}}yes{{end}}", "yes"),
        ("{{if or .Empty .Nothing (not true)}}a{{else}}b{{end}}", "b"),
        ("{{and true .Name}} {{or \"\" .Name}}", "/web /web"),
        ("{{or .Name (index .Args 9)}}", "/web"),
        ("{{with .State}}{{.Pid}} {{$.Name}}{{end}}", "42 /web"),
        ("{{with .Nothing}}x{{else}}y{{end}}", "y"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "/web"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}", "1"),
        ("{{.Name | printf \"%q\"}}", "\"/web\""),
        (
            "{{printf \"%-6s|%5d|%05d|%.2f|%t|%v|%x|%%\" .Name 7 7 0.5 true .Args 255}}",
            "/web  |    7|00007|0.50|true|[-m http.server]|ff|%",
        ),
        ("{{printf \"%s\"}}", "%!s(MISSING)"),
        ("{{print 1 2 \"a\" 3}}", "1 2a3"),
        ("{{println .Name 1}}", "/web 1\n"),
        (
            "{{join .Args \",\"}} {{upper .Name}} {{lower \"ABC\"}} {{title \"ab cd\"}}",
            "-m,http.server /WEB abc Ab Cd",
        ),
        ("{{json (split \"a,b\" \",\")}}", r#"["a","b"]"#),
        ("{{truncate .Id 4}}{{pad \"x\" 1 2}}|", "0123 x  |"),
        (
            "{{eq .State.Pid 1 42}} {{ne 1 2}} {{lt 1 2}} {{ge \"a\" \"b\"}} {{gt 0.5 .Ratio}} {{le 2 2}}",
            "true true true false false true",
        ),
        ("a  {{- .State.Pid -}}  b", "a42b"),
        ("a{{/* comment */}}b {{- /* trimmed */ -}} c", "abc"),
        ("{{`raw \\n`}}{{\"tab\\t\\\"\"}}", "raw \\ntab\t\""),
        ("{{-3}} {{1.5}} {{true}}", "-3 1.5 true"),
        ("{{.ID}} {{index $ \"ID\"}} {{if .Health}}x{{else}}none{{end}}", "0123 0123 none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("}} is text", "}} is text"),
    ] {
        assert_eq!(rendered(template).as_deref(), Ok(want), "{template}");
    }
}

#[test]
fn mistakes_are_named() {
    for (template, want) in [
        ("{{.Nmae}}", "there is no field .Nmae: there are .Id, .Name"),
        ("{{.State.Pod}}", "there is no field .Pod"),
        ("{{.Name.First}}", ".First is asked of a string"),
        ("{{", "{{ without }}"),
        ("{{.Name", "{{ without }}"),
        ("{{if .Name}}", "if without an end"),
        ("{{range .Args}}{{else}}", "else without an end"),
        ("{{end}}", "unexpected end"),
        ("{{else}}", "unexpected else"),
        ("{{if true}}{{else}}{{else}}{{end}}", "unexpected else"),
        ("{{}}", "want a value or a function"),
        ("{{.Name | }}", "want a value or a function"),
        ("{{foo .Name}}", "no function \"foo\""),
        ("{{$x}}", "no variable \"$x\""),
        ("{{$x = 1}}", "no variable \"$x\""),
        ("{{\"abc}}", "does not end"),
        ("{{\"\\z\"}}", "unknown escape"),
        ("{{.Name 1}}", "takes no arguments"),
        ("{{.Label}}", "one string"),
        ("{{index .Args 2}}", "2 is out of range: there are 2"),
        ("{{index .Args -1}}", "-1 is out of range"),
        ("{{slice .Id 3 1}}", "out of range"),
        ("{{len 1}}", "want a list, a map or a string"),
        ("{{lt 1 \"a\"}}", "an integer can't be compared with a string"),
        ("{{range .Name}}{{end}}", "can't range over a string"),
        ("{{break}}", "break outside of range"),
        ("{{printf \"%z\" 1}}", "%z"),
        ("{{define \"x\"}}{{end}}", "supported here"),
        ("{{1a}}", "not a number"),
        ("{{(.Name}}", "want )"),
        ("{{.Name;}}", "unexpected character"),
    ] {
        let error = rendered(template).map_err(|error| error.to_string()).unwrap_err();
        assert!(error.contains(want), "{template}: {error}");
        assert!(error.starts_with("template: "), "{template}: {error}");
    }
}

#[test]
fn json_skips_methods_and_is_pretty_on_demand() {
    let value = record([
        ("A", 1_u32.into()),
        ("Label", Value::Lookup(Lookup::Heading)),
        ("Hidden", hidden("not here")),
        ("B", Value::List(vec![])),
        ("C", vec!["<&>"].into()),
    ]);
    assert_eq!(value.json(), r#"{"A":1,"B":[],"C":["<&>"]}"#);
    assert_eq!(
        value.json_pretty(),
        "{\n    \"A\": 1,\n    \"B\": [],\n    \"C\": [\n        \"<&>\"\n    ]\n}"
    );
}

#[test]
fn a_column_of_a_label_is_headed_by_it() {
    let heading = record([("Label", Value::Lookup(Lookup::Heading))]);
    let template = Template::parse("{{.Label \"com.example.build-id\"}}").unwrap();
    assert_eq!(template.render(&heading).unwrap(), "BUILD ID");
}
