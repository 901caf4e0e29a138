//! How long views take: printed, never asserted. `cargo test -p forge-sandbox --release -- --ignored measure`.

use crate::rig::folder;
use crate::run::{Run, transaction};
use std::fs;
use std::path::Path;
use std::time::Instant;

fn files(root: &Path, count: usize, bytes: u64) {
    for n in 0..count {
        let folder = root.join(format!("d{}/e{}", n % 50, n % 1000 / 50));
        fs::create_dir_all(&folder).unwrap();
        // A large one has no blocks: nothing of it is read.
        fs::File::create(folder.join(format!("file{n}.txt"))).unwrap().set_len(bytes).unwrap();
    }
}

async fn one(what: &str, repo: &Path) {
    let data = folder();
    let begun = Instant::now();
    let run = Run::new(data.path(), transaction(repo)).await;
    let opened = begun.elapsed();
    let view = run.room().report().view;
    let timed = async |label: &str, script: Option<&str>| {
        if let Some(script) = script {
            run.sh(script).await;
        }
        let begun = Instant::now();
        run.snapshot().await;
        println!("{what}: {label} {:?}", begun.elapsed());
    };
    println!("{what}: {view} opened in {opened:?}");
    timed("first snapshot", None).await;
    timed("snapshot, nothing changed", None).await;
    timed("snapshot, nothing changed", None).await;
    for n in 0..3 {
        timed("snapshot, one file changed", Some(&format!("echo {n} >> d1/e0/file1.txt"))).await;
    }
    let begun = Instant::now();
    let run = {
        let mut run = run;
        run.reopen(None).await;
        run
    };
    println!("{what}: opened again in {:?}", begun.elapsed());
    drop(run);
}

#[tokio::test]
#[ignore = "measures"]
async fn measure() {
    for (what, count, bytes) in
        [("1,000 files", 1000, 100), ("100,000 files", 100_000, 100), ("5 GB, 2,500 files", 2500, 2 << 20)]
    {
        let repo = folder();
        files(repo.path(), count, bytes);
        one(what, repo.path()).await;
    }
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn measure_a_million_files() {
    let repo = folder();
    files(repo.path(), 1_000_000, 0);
    one("1,000,000 files", repo.path()).await;
}
