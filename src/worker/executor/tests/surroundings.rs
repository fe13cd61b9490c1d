//! What a task finds: variables, directory, input, descriptors, signals.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::super::directories::Directories;
use super::super::environment::Environment;
use super::*;
use crate::process::testing::shared;
use crate::protocol::task::{ResourceIds, Resources, Stdin};

/// The environment that `variables` of the worker and `spec` give a task.
fn environment(
    policy: EnvPolicy,
    variables: &[(&str, &str)],
    spec: TaskSpec,
) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let config = ExecConfig {
        slot_dir: "/slot".into(),
        output_dir: "/output".into(),
        instance: "abc".to_owned(),
        env: policy,
        cwd: CwdPolicy::TaskDir,
        worker_id: "w".to_owned(),
        coordinator_url: None,
        kept_output: KeptOutput::Stays,
        groups: TaskGroups::default(),
        begun: None,
        live_dir: None,
        passed: Default::default(),
    };
    let directories = Directories::create(dir.path()).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let mut environment = Environment::new(&config, &directories, dir.path(), variables).unwrap();
    let first = environment.for_task(&task(TaskSpec::argv(["x"])));
    environment.give_back(first.clone());
    let task = task(spec);
    let built = environment.for_task(&task);
    environment.give_back(built.clone());
    let plain = |list: &[std::ffi::CString]| -> BTreeMap<String, String> {
        let texts = list.iter().map(|entry| entry.to_str().unwrap().to_owned());
        let pairs = texts.map(|text| {
            text.split_once('=')
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .unwrap()
        });
        pairs.collect()
    };
    assert_eq!(plain(&built).len(), built.len(), "a name occurs twice");
    let third = environment.for_task(&super::task(TaskSpec::argv(["x"])));
    let (mut first, mut third) = (plain(&first), plain(&third));
    first.remove("MITO_TASK_UUID");
    third.remove("MITO_TASK_UUID");
    assert_eq!(first, third, "a task changed the environment of the next");
    plain(&built)
}

const WORKER: [(&str, &str); 9] = [
    ("PATH", "/bin"),
    ("HOME", "/root"),
    ("LC_ALL", "C"),
    ("LANG", "C"),
    ("EDITOR", "ed"),
    ("MITOSIS_TOKEN", "secret"),
    ("MITO_TASK_ID", "outer"),
    ("MITO_ENTRY", "outer"),
    ("MITO_INSTANCE", "outer"),
];

fn with_env(pairs: &[(&str, &str)]) -> TaskSpec {
    let env = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    TaskSpec {
        env: env.collect(),
        ..TaskSpec::argv(["x"])
    }
}

#[test]
fn the_allow_list_lets_nothing_else_through() {
    let variables = environment(EnvPolicy::AllowList, &WORKER, with_env(&[("MINE", "1")]));
    let names: Vec<&str> = variables.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "HOME",
            "LANG",
            "LC_ALL",
            "MINE",
            "MITO_ATTEMPT",
            "MITO_EXEC_DIR",
            "MITO_INSTANCE",
            "MITO_NEW_TASK",
            "MITO_RESOURCE_DIR",
            "MITO_RESULT_DIR",
            "MITO_SUITE_UUID",
            "MITO_TASK_ID",
            "MITO_TASK_UUID",
            "MITO_WORKER_ID",
            "PATH",
        ]
    );
}

#[test]
fn inheriting_keeps_everything_but_what_is_the_systems() {
    let variables = environment(EnvPolicy::Inherit, &WORKER, with_env(&[]));
    assert_eq!(variables["EDITOR"], "ed");
    assert_eq!(
        (&*variables["MITO_TASK_ID"], &*variables["MITO_INSTANCE"]),
        ("42", "abc")
    );
    assert!(!variables.contains_key("MITOSIS_TOKEN") && !variables.contains_key("MITO_ENTRY"));
}

#[test]
fn the_spec_overrides_the_worker_and_the_system_overrides_the_spec() {
    let own = with_env(&[
        ("PATH", "/mine"),
        ("MITO_ATTEMPT", "99"),
        ("MITO_WORKER_ID", "x"),
        ("EDITOR", ""),
    ]);
    let variables = environment(EnvPolicy::Inherit, &WORKER, own);
    assert_eq!((&*variables["PATH"], &*variables["EDITOR"]), ("/mine", ""));
    assert_eq!(
        (&*variables["MITO_ATTEMPT"], &*variables["MITO_WORKER_ID"]),
        ("3", "w")
    );
}

#[tokio::test]
async fn a_task_is_told_who_and_where_it_is() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let task = task(TaskSpec {
        array_index: Some(-4),
        entry: Some("a b".to_owned()),
        ..TaskSpec::argv(["env"])
    });
    let result = slot.run_task(&task).await;
    let text = stdout(&result);
    let in_slot = |name| slot.path("slot").join(name).display().to_string();
    for (name, value) in [
        ("MITO_TASK_ID", "42".to_owned()),
        ("MITO_TASK_UUID", task.uuid.to_string()),
        ("MITO_ATTEMPT", "3".to_owned()),
        ("MITO_SUITE_UUID", task.suite_uuid.to_string()),
        ("MITO_WORKER_ID", "manager/7".to_owned()),
        ("MITO_INSTANCE", "test-instance".to_owned()),
        ("MITO_RESULT_DIR", in_slot("result")),
        ("MITO_EXEC_DIR", in_slot("exec")),
        ("MITO_RESOURCE_DIR", in_slot("resource")),
        ("MITO_NEW_TASK", in_slot("new_task.json")),
        ("MITO_ARRAY_INDEX", "-4".to_owned()),
        ("MITO_ENTRY", "a b".to_owned()),
    ] {
        let line = format!("{name}={value}");
        assert!(
            text.lines().any(|known| known == line),
            "{text} lacks {line}"
        );
    }
}

#[tokio::test]
async fn a_task_runs_where_its_spec_or_the_policy_says() {
    let _turn = shared().await;
    let at = |cwd: &str| TaskSpec {
        cwd: Some(cwd.to_owned()),
        ..TaskSpec::argv(["pwd", "-P"])
    };
    let mut own = Slot::new();
    let exec = own.path("slot/exec").canonicalize().unwrap();
    assert_eq!(
        stdout(&own.run(TaskSpec::argv(["pwd", "-P"])).await).trim(),
        exec.to_str().unwrap()
    );
    let mut fixed = Slot::with(|config| config.cwd = CwdPolicy::Fixed("/usr".into()));
    assert_eq!(
        stdout(&fixed.run(TaskSpec::argv(["pwd", "-P"])).await),
        "/usr\n"
    );
    assert_eq!(stdout(&fixed.run(at("bin")).await), "/usr/bin\n");
    assert_eq!(stdout(&fixed.run(at("/")).await), "/\n");
}

#[tokio::test]
async fn a_shell_line_gets_the_other_arguments_as_its_own() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let spec = TaskSpec {
        shell: true,
        ..TaskSpec::argv(["echo \"$0:$1:$2:$#\"", "a b", "*"])
    };
    assert_eq!(stdout(&slot.run(spec).await), "sh:a b:*:2\n");
}

#[tokio::test]
async fn standard_input_is_nothing_a_text_or_a_file() {
    let _turn = shared().await;
    let mut slot = Slot::with(|config| config.cwd = CwdPolicy::Fixed("/".into()));
    let file = slot.path("input");
    std::fs::write(&file, "from a file").unwrap();
    let cat = |stdin| TaskSpec {
        stdin,
        ..TaskSpec::argv(["cat"])
    };
    let big = "0123456789".repeat(50_000);
    assert_eq!(stdout(&slot.run(cat(None)).await), "");
    assert_eq!(
        stdout(&slot.run(cat(Some(Stdin::Text("from text".into())))).await),
        "from text"
    );
    let named = Stdin::File(file.display().to_string());
    assert_eq!(stdout(&slot.run(cat(Some(named))).await), "from a file");
    let count = TaskSpec {
        stdin: Some(Stdin::Text(big)),
        ..TaskSpec::argv(["wc", "-c"])
    };
    assert_eq!(stdout(&slot.run(count).await).trim(), "500000");
    for (name, part) in [
        ("/no/such/file", "No such file"),
        ("/usr", "is a directory"),
    ] {
        let result = slot.run(cat(Some(Stdin::File(name.into())))).await;
        let message = result.message.unwrap();
        assert_eq!(result.reason, Reason::InputMissing);
        assert!(
            message.contains(name) && message.contains(part),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_task_has_three_descriptors_a_group_of_its_own_and_plain_signals() {
    let _turn = shared().await;
    // Descriptors that would reach a careless child: they lack the close-on-exec flag.
    let careless: Vec<_> = (0..8)
        .map(|_| rustix::io::dup(std::io::stderr()).unwrap())
        .collect();
    let mut slot = Slot::new();
    // Only built-in commands, because a pattern or a pipe would open descriptors of its own.
    let look = "i=0; while [ $i -lt 200 ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done";
    assert_eq!(stdout(&slot.shell(look).await), "0\n1\n2\n");
    drop(careless);

    let result = slot
        .run(TaskSpec::argv([
            "cat",
            "/proc/self/status",
            "/proc/self/stat",
        ]))
        .await;
    let text = stdout(&result);
    for name in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(
            text.contains(&format!("{name}:\t0000000000000000\n")),
            "{text}"
        );
    }
    let stat = text.lines().last().unwrap();
    let fields: Vec<&str> = stat.split(' ').collect();
    assert_eq!(fields[0], fields[4], "pid and process group differ: {stat}");
}

#[test]
fn ids_that_were_given_are_named_and_replace_what_stood_there() {
    let dir = tempfile::tempdir().unwrap();
    let config = ExecConfig {
        slot_dir: "/slot".into(),
        output_dir: "/output".into(),
        instance: "abc".to_owned(),
        env: EnvPolicy::Inherit,
        cwd: CwdPolicy::TaskDir,
        worker_id: "w".to_owned(),
        coordinator_url: None,
        kept_output: KeptOutput::Stays,
        groups: TaskGroups::default(),
        begun: None,
        live_dir: None,
        passed: Default::default(),
    };
    let directories = Directories::create(dir.path()).unwrap();
    let outer = [("CUDA_VISIBLE_DEVICES", "0,1,2"), ("MITO_CPUS", "9")];
    let outer = outer.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let mut environment = Environment::new(&config, &directories, dir.path(), outer).unwrap();
    let mut built = |ids: Option<ResourceIds>| {
        let spec = TaskSpec {
            env: BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), "7".to_owned())]),
            ..TaskSpec::argv(["x"])
        };
        let task = WorkerTaskResp { ids, ..task(spec) };
        let variables = environment.for_task(&task);
        let mut found: Vec<String> = variables
            .iter()
            .map(|variable| variable.to_str().unwrap().to_owned())
            .filter(|text| text.starts_with("CUDA") || text.starts_with("MITO_CPUS"))
            .collect();
        environment.give_back(variables);
        found.sort_unstable();
        found
    };
    assert_eq!(built(None), ["CUDA_VISIBLE_DEVICES=7"]);
    let ids = |cpus: &[u32], gpus: &[&str]| {
        Some(ResourceIds {
            cpus: cpus.to_vec(),
            gpus: gpus.iter().map(|name| (*name).to_owned()).collect(),
        })
    };
    assert_eq!(
        built(ids(&[0, 1, 2, 5], &["2", "GPU-a"])),
        ["CUDA_VISIBLE_DEVICES=2,GPU-a", "MITO_CPUS=0-2,5"]
    );
    assert_eq!(
        built(ids(&[3], &[])),
        ["CUDA_VISIBLE_DEVICES=7", "MITO_CPUS=3"]
    );
}

#[tokio::test]
async fn a_pinned_task_stays_on_its_cores_and_the_worker_keeps_its_own() {
    let before = crate::process::usable_cores();
    let core = *before.last().unwrap();
    let mut slot = Slot::new();
    let pinned = |ids| WorkerTaskResp {
        ids,
        ..task(TaskSpec {
            resources: Resources {
                cpus: Some(1.0),
                pin: true,
                ..Resources::default()
            },
            ..TaskSpec::shell_line("grep Cpus_allowed_list /proc/self/status; echo $MITO_CPUS")
        })
    };
    let ids = ResourceIds {
        cpus: vec![core],
        gpus: Vec::new(),
    };
    let result = slot.run_task(&pinned(Some(ids))).await;
    let text = String::from_utf8(result.stdout.tail.clone()).unwrap();
    assert_eq!(text, format!("Cpus_allowed_list:\t{core}\n{core}\n"));
    assert_eq!(crate::process::usable_cores(), before);
    let result = slot.run_task(&pinned(None)).await;
    assert_eq!(result.reason, Reason::SpawnFailed);
    assert!(
        result
            .message
            .unwrap()
            .contains("only a manager gives them")
    );
}

#[tokio::test]
async fn a_task_has_no_terminal_and_is_not_stopped_for_wanting_one() {
    let _turn = shared().await;
    let mut slot = Slot::new();
    let result = slot.shell("stty -echo < /dev/tty").await;
    assert!(result.exit_code.is_some_and(|code| code != 0), "{result:?}");
}
