//! What a box and a command in it cost, beside plain fork+exec of the same command. Prints medians and ratios.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use forge_jail::{
    BackgroundProcesses, INIT_ARGV0, Jail, JailCommand, JailRequest, JailSpec, RawBytes, init_main,
};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn times(n: usize, mut work: impl FnMut()) -> Duration {
    let one = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    median((0..n).map(|_| one(&mut work)).collect())
}

#[allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "the measurement compares with a plain process"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args_os().next().is_some_and(|a| a == INIT_ARGV0) {
        init_main();
    }
    let exe = PathBuf::from("/proc/self/exe");
    let dir = std::env::current_dir()?;
    let plain = times(300, || {
        let _ = Command::new("/bin/true").status();
    });
    let null = std::fs::File::create("/dev/null")?;
    let jail = Jail::spawn(&JailSpec::new("cost", &dir), &exe)?;
    let layers = jail.layers();
    let command = || JailCommand {
        program: None,
        argv: vec![RawBytes::from("/bin/true")],
        cwd: RawBytes::default(),
        env: Vec::new(),
        timeout_ms: Some(10_000),
        inherited_env: None,
        stdin: None,
        background: BackgroundProcesses::Kill,
        also: Vec::new(),
    };
    let warm = times(300, || {
        let _ = jail.call(JailRequest::Exec(command()), &[null.as_fd(), null.as_fd()]);
    });
    let list = Some(vec!["true".to_owned()]);
    let listed = Jail::spawn(&JailSpec { programs: list, ..JailSpec::new("cost", &dir) }, &exe)?;
    let shell = |jail: &Jail| {
        let mut command = command();
        command.argv =
            ["/bin/sh", "-c", "/bin/true; /bin/true; /bin/true; /bin/true"].map(RawBytes::from).into();
        times(300, || {
            let _ = jail.call(JailRequest::Exec(command.clone()), &[null.as_fd(), null.as_fd()]);
        })
    };
    let (four, four_listed) = (shell(&jail), shell(&listed));
    let with_list = times(300, || {
        let _ = listed.call(JailRequest::Exec(command()), &[null.as_fd(), null.as_fd()]);
    });
    drop(listed);
    let ping = times(300, || {
        let _ = jail.call(JailRequest::Ping, &[]);
    });
    let mut drops = Vec::new();
    let mut to_first = Vec::new();
    let cold = times(30, || {
        let start = Instant::now();
        let jail = Jail::spawn(&JailSpec::new("cost", &dir), &exe);
        let spawned = start.elapsed();
        if let Ok(jail) = jail {
            let _ = jail.call(JailRequest::Exec(command()), &[null.as_fd(), null.as_fd()]);
            to_first.push(start.elapsed());
            let begin = Instant::now();
            drop(jail);
            drops.push(begin.elapsed());
        }
        println!("spawn {spawned:?}");
    });
    println!(
        "plain {plain:?}  warm {warm:?} ({:.2}x)  ping {ping:?}",
        warm.as_secs_f64() / plain.as_secs_f64()
    );
    println!("with a list {with_list:?}; a shell that starts four {four:?}, with a list {four_listed:?}");
    println!(
        "spawn+first command+drop {cold:?}, to first result {:?}, drop {:?}",
        median(to_first),
        median(drops)
    );
    for layer in layers {
        println!("{layer}");
    }
    Ok(())
}
