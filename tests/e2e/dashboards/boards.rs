//! Dashboards as files: their panels' queries, and what Grafana and the rules of the public dashboard linter ask of them.
//!
//! The rules of the linter are written by hand for what this project uses; Grafana's own schema is asked in
//! [`super::published`].

use serde_json::Value;

/// A query of a panel, with Grafana's variables replaced.
#[derive(Debug, Clone)]
pub(super) struct Query {
    /// Dashboard and title.
    pub(super) panel: String,
    pub(super) expr: String,
}

/// Every dashboard.
pub(super) fn all() -> Vec<Value> {
    let entries = std::fs::read_dir(super::dir().join("grafana")).expect("the dashboards");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let json = paths.filter(|path| path.extension().is_some_and(|ext| ext == "json"));
    json.map(|path| {
        let text = std::fs::read_to_string(&path).expect("a dashboard");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
    .collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    list(board, "/panels")
        .iter()
        .filter(|panel| text(panel, "/type") != "row")
}

/// The queries of a dashboard as Grafana would send them with every variable at "All".
pub(super) fn read(board: &Value) -> Vec<Query> {
    let title = text(board, "/title");
    let one = |panel: &Value| -> Vec<Query> {
        let panel_title = format!("{title} / {}", text(panel, "/title"));
        let targets = list(panel, "/targets").iter();
        let query = |target| Query {
            panel: panel_title.clone(),
            expr: ["$job", "$instance", "$worker"]
                .iter()
                .fold(text(target, "/expr").to_owned(), |expr, name| {
                    expr.replace(name, ".+")
                })
                .replace("$__rate_interval", "30s"),
        };
        targets.map(query).collect()
    };
    panels(board).flat_map(one).collect()
}

/// What is wrong with a dashboard.
pub(super) fn problems(board: &Value) -> Vec<String> {
    let title = text(board, "/title");
    let mut problems = Vec::new();
    let mut hold = |holds: bool, what: String| {
        if !holds {
            problems.push(format!("{title}: {what}"));
        }
    };
    hold(
        text(board, "/uid").starts_with("mitosis-"),
        "no uid".to_owned(),
    );
    hold(board["editable"] == false, "can be edited".to_owned());
    hold(
        board["schemaVersion"]
            .as_u64()
            .is_some_and(|version| version >= 36),
        "old schema".to_owned(),
    );
    let variables: Vec<&str> = list(board, "/templating/list")
        .iter()
        .map(|v| text(v, "/name"))
        .collect();
    hold(
        variables == ["datasource", "job", "instance", "worker"],
        format!("variables {variables:?}"),
    );
    let labels = [
        ("datasource", "Data Source"),
        ("job", "Job"),
        ("instance", "Instance"),
    ];
    for (variable, (name, label)) in list(board, "/templating/list").iter().zip(labels) {
        hold(
            text(variable, "/label") == label,
            format!("label of {name}"),
        );
    }
    for variable in list(board, "/templating/list").iter().skip(1) {
        hold(
            variable["multi"] == true && text(variable, "/allValue") == ".+",
            format!("{} is for one value", variable["name"]),
        );
        hold(
            text(variable, "/datasource/uid") == "${datasource}",
            format!("data source of {}", variable["name"]),
        );
        hold(
            variable["refresh"] == 2,
            format!("{} is not refreshed", variable["name"]),
        );
        hold(
            text(variable, "/query").starts_with("label_values("),
            "variable".to_owned(),
        );
    }
    hold(
        list(board, "/links").len() == 4,
        "links to the others and the guide".to_owned(),
    );
    let mut ids: Vec<u64> = list(board, "/panels")
        .iter()
        .filter_map(|panel| panel["id"].as_u64())
        .collect();
    ids.dedup();
    hold(ids.len() == list(board, "/panels").len(), "ids".to_owned());
    for panel in panels(board) {
        let name = text(panel, "/title");
        hold(
            !name.is_empty() && !text(panel, "/description").is_empty(),
            format!("{name}: words"),
        );
        hold(
            matches!(text(panel, "/type"), "stat" | "timeseries" | "heatmap"),
            format!("{name}: type"),
        );
        hold(
            !text(panel, "/fieldConfig/defaults/unit").is_empty(),
            format!("{name}: unit"),
        );
        hold(
            !list(panel, "/fieldConfig/defaults/thresholds/steps").is_empty(),
            format!("{name}: thresholds"),
        );
        hold(
            text(panel, "/datasource/uid") == "${datasource}",
            format!("{name}: data source"),
        );
        let grid = |field: &str| panel["gridPos"][field].as_u64().unwrap_or(99);
        hold(
            grid("x") + grid("w") <= 24 && grid("h") < 20,
            format!("{name}: place"),
        );
        hold(
            !list(panel, "/targets").is_empty(),
            format!("{name}: no query"),
        );
        for target in list(panel, "/targets") {
            let expr = text(target, "/expr");
            let selectors = expr.matches("mitosis_").count();
            for matcher in [r#"job=~"$job""#, r#"instance=~"$instance""#] {
                hold(
                    expr.matches(matcher).count() == selectors,
                    format!("{name}: {matcher} in {expr}"),
                );
            }
            let rates = expr.matches("rate(").count();
            hold(
                expr.matches("$__rate_interval").count() >= rates,
                format!("{name}: rate interval"),
            );
            hold(
                !text(target, "/legendFormat").is_empty(),
                format!("{name}: legend"),
            );
        }
        for link in list(panel, "/links") {
            let anchor = text(link, "/url").rsplit('#').next().unwrap_or_default();
            let guide = std::fs::read_to_string(super::dir().join("README.md")).unwrap_or_default();
            hold(
                section(&guide, anchor).is_some(),
                format!("{name}: no section {anchor}"),
            );
        }
    }
    problems
}

/// The text under the heading with this anchor.
pub(super) fn section<'a>(guide: &'a str, anchor: &str) -> Option<&'a str> {
    guide
        .split("\n## ")
        .flat_map(|chapter| chapter.split("\n### "))
        .find(|section| {
            let heading = section.lines().next().unwrap_or_default();
            heading.to_lowercase().replace(' ', "-") == anchor
        })
}
