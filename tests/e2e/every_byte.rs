//! What `run` gives of a task is what a pipe gives: all bytes, in order, and nothing of ours among them.

use std::process::{Command, Stdio};

use crate::support::{Sandbox, size};

/// More than any limit that the service has.
const LAST: u32 = 2_500_000;

fn numbers(last: u32) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 1..=last {
        text.extend_from_slice(number.to_string().as_bytes());
        text.push(b'\n');
    }
    text
}

#[test]
fn a_long_output_passes_whole_in_every_mode() {
    let sandbox = Sandbox::new();
    let all = numbers(4_000_000);
    assert_eq!(all.len(), 30_888_896);
    let ran = sandbox.run(["run", "--", "seq", "1", "4000000"]).code(0);
    assert!(
        ran.stdout == all,
        "{} bytes of {}",
        ran.stdout.len(),
        all.len()
    );
    let wanted = numbers(LAST);
    let last = LAST.to_string();
    for mode in ["-k", "--line-buffer"] {
        let ran = sandbox.run(["run", mode, "--", "seq", "1", &last]).code(0);
        assert!(ran.stdout == wanted, "{mode}: {} bytes", ran.stdout.len());
    }
    let call = ["run", "-o", "out", "--", "seq", "1", &last];
    sandbox.run(call).code(0);
    assert!(std::fs::read(sandbox.path("out/1.out")).unwrap() == wanted);
}

#[test]
fn a_long_error_output_and_one_that_is_no_text_pass_whole() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", format!("seq 1 {LAST} >&2\n"));
    let ran = sandbox.run(["run", "-q", "list.txt"]).code(0);
    assert!(
        ran.stderr.as_bytes() == numbers(LAST),
        "{} bytes",
        ran.stderr.len()
    );
    sandbox.file("list.txt", "head -c 20000000 /dev/urandom | tee copy\n");
    for mode in ["-k", "--line-buffer"] {
        let ran = sandbox.run(["run", mode, "list.txt"]).code(0);
        let copy = std::fs::read(sandbox.path("copy")).unwrap();
        assert!(ran.stdout == copy, "{mode}: {} bytes", ran.stdout.len());
    }
}

#[test]
fn a_stream_that_is_opened_again_loses_nothing() {
    let sandbox = Sandbox::new();
    sandbox.file("list.txt", "echo one; echo two > /dev/stdout\n");
    assert_eq!(sandbox.run(["run", "list.txt"]).code(0).out(), "one\ntwo\n");
}

/// Does to its streams what programs do, drawn by its argument.
const PROGRAM: &str = r#"
import os, random, signal, sys
draw = random.Random(int(sys.argv[1]))
descriptors = [1, 2]
for step in range(draw.randrange(12)):
    fd = draw.choice(descriptors)
    what = draw.randrange(10)
    try:
        if what < 6:
            size = draw.choice([1, 80, 4096, 4097, 70000, 300000])
            data = draw.randbytes(draw.randrange(size))
            while data:
                data = data[os.write(fd, data):]
        elif what == 6:
            name = draw.choice(["/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/proc/self/fd/2"])
            flags = draw.choice([0, os.O_TRUNC, os.O_APPEND, os.O_CREAT | os.O_TRUNC])
            descriptors.append(os.open(name, os.O_WRONLY | flags))
        elif what == 7:
            os.lseek(fd, draw.choice([0, 5]), os.SEEK_SET)
        elif what == 8:
            os.ftruncate(fd, 0)
        elif draw.randrange(3) == 0:
            os.close(fd)
    except OSError:
        pass
end = draw.randrange(6)
if end == 0:
    os.kill(os.getpid(), signal.SIGKILL)
os._exit(end)
"#;

/// What a command writes to a pipe on either stream.
fn piped(command: &mut Command) -> [Vec<u8>; 2] {
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("the program starts");
    [output.stdout, output.stderr]
}

/// What `run` prints of the list one task at a time, and what it leaves on standard error beside that.
fn printed(sandbox: &Sandbox, mode: &[&str]) -> Vec<u8> {
    sandbox
        .run([&["run", "list.txt", "-q"], mode].concat())
        .code(1)
        .stdout
}

#[test]
fn whatever_programs_do_to_their_streams_the_bytes_are_those_of_xargs_and_of_a_pipe() {
    let programs = size(16, 400) as u64;
    let sandbox = Sandbox::new();
    let program = sandbox.file("program.py", PROGRAM);
    let program = program.to_str().unwrap();
    // Other programs each time; the number of the first one repeats them.
    let drawn = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = match std::env::var("MITOSIS_FIRST_PROGRAM") {
        Ok(first) => first.parse().unwrap(),
        Err(_) => drawn.unwrap().as_secs() % 1_000_000_000,
    };
    println!("MITOSIS_FIRST_PROGRAM={first}");
    let seeds = first..first + programs;
    let lines = seeds
        .clone()
        .map(|seed| format!("exec python3 {program} {seed}\n"));
    sandbox.file("list.txt", lines.collect::<String>());
    sandbox.file(
        "seeds.txt",
        seeds
            .clone()
            .map(|seed| format!("{seed}\n"))
            .collect::<String>(),
    );
    let expected: Vec<[Vec<u8>; 2]> = seeds
        .map(|seed| piped(Command::new("python3").args([program, &seed.to_string()])))
        .collect();
    let all: [Vec<u8>; 2] = [0, 1].map(|stream| {
        let streams = expected.iter().map(|streams| streams[stream].as_slice());
        streams.collect::<Vec<_>>().concat()
    });
    // A program that a signal ends would end xargs.
    let by_xargs = format!(
        "xargs -P1 -n1 sh -c 'python3 {program} $0; :' < {}",
        sandbox.path("seeds.txt").display()
    );
    let [by_xargs, _] = piped(Command::new("sh").args(["-c", &by_xargs]));
    assert!(
        by_xargs == all[0],
        "xargs: {} bytes of {}",
        by_xargs.len(),
        all[0].len()
    );
    sandbox
        .run(["run", "-w", "2", "-o", "out", "list.txt"])
        .code(1);
    for (line, streams) in (1..).zip(&expected) {
        for (ending, wanted) in ["out", "err"].iter().zip(streams) {
            let found = std::fs::read(sandbox.path(&format!("out/{line}.{ending}"))).unwrap();
            assert!(
                &found == wanted,
                "line {line}, {ending}: {} bytes of {}",
                found.len(),
                wanted.len()
            );
        }
    }
    let modes = [
        &["-w", "1"][..],
        &["-k", "-w", "3"],
        &["--line-buffer", "-w", "1"],
        &["-k", "-w", "2", "--direct", "never"],
    ];
    for mode in modes {
        let found = printed(&sandbox, mode);
        assert!(
            found == all[0],
            "{mode:?}: {} bytes of {}",
            found.len(),
            all[0].len()
        );
    }
    // Error output, by way of the other stream: between its bytes `run` has notes of its own.
    let lines = all_lines_swapped(&sandbox.text("list.txt"));
    sandbox.file("list.txt", lines);
    let found = printed(&sandbox, &["-w", "1"]);
    assert!(
        found == all[1],
        "errors: {} bytes of {}",
        found.len(),
        all[1].len()
    );
}

/// The same list with both streams of each line exchanged.
fn all_lines_swapped(list: &str) -> String {
    let lines = list
        .lines()
        .map(|line| format!("{line} 3>&1 1>&2 2>&3 3>&-\n"));
    lines.collect()
}
