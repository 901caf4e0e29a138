//! Measures manifests and snapshots on a tree of 100,000 files beside git on the same tree, and prints the medians in
//! milliseconds as one line of JSON. `forge-snapshot-bench FOLDER [FILES]`: FOLDER must not exist; it is left there.

use forge_snapshot::{BaseManifest, Layout, ObjectStore, OverlayXattrs, Tracker, TrackerOptions, TreeRoot};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 15;

/// Runs the work some times; returns the median in milliseconds.
fn median(mut work: impl FnMut(usize) -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        work(round)?;
        times.push(begin.elapsed().as_secs_f64() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[ROUNDS / 2] * 1_000.0).round() / 1_000.0)
}

fn plant(root: &Path, files: usize) -> std::io::Result<()> {
    for folder in 0..files.div_ceil(50) {
        let place = root.join(format!("package-{:03}/module-{folder:05}", folder / 50));
        fs::create_dir_all(&place)?;
        for file in 0..50.min(files - folder * 50) {
            fs::write(place.join(format!("file-{file:02}.rs")), format!("// {folder} {file}\n").repeat(8))?;
        }
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "what is measured against")]
fn git(root: &Path, store: &Path, arguments: &[&str]) -> Outcome<()> {
    let output = Command::new("git")
        .args(["-c", "core.fsmonitor=false", "-c", "gc.auto=0"])
        .args(arguments)
        .current_dir(root)
        .env("GIT_DIR", store)
        .env("GIT_WORK_TREE", root)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

fn tracker(
    folder: &Path,
    base: &Arc<BaseManifest>,
    lower: &Path,
    layout: Layout,
    name: &str,
) -> Outcome<Tracker> {
    Ok(Tracker::open(TrackerOptions {
        base: base.clone(),
        lower: TreeRoot::open(lower)?,
        layout,
        objects: Arc::new(ObjectStore::open(&folder.join(name))?),
        ignored: Vec::new(),
        owner: None,
    })?)
}

/// The median of a snapshot after each change of one file.
fn snapshots(tracker: &mut Tracker, changed: &Path) -> Outcome<f64> {
    tracker.snapshot()?;
    let mut last = Tracker::baseline_digest();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        fs::write(changed, format!("changed in round {round}\n"))?;
        let begin = Instant::now();
        let id = tracker.snapshot()?;
        times.push(begin.elapsed().as_secs_f64() * 1_000.0);
        if std::mem::replace(&mut last, id) == id {
            return Err("a change was not seen".into());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[ROUNDS / 2] * 1_000.0).round() / 1_000.0)
}

fn measure(folder: &Path, files: usize) -> Outcome<serde_json::Value> {
    let tree = folder.join("tree");
    let upper = folder.join("upper");
    plant(&tree, files)?;
    let take = median(|_| BaseManifest::scan_tree(&tree).map(drop).map_err(Into::into))?;
    let base = Arc::new(BaseManifest::scan_tree(&tree)?);
    let manifest = folder.join("manifest");
    let save = median(|_| Ok(base.save(&manifest)?))?;
    let load = median(|_| BaseManifest::load(&manifest).map(drop).map_err(Into::into))?;

    let one = "package-000/module-00007/file-03.rs";
    let changed: PathBuf = upper.join(one);
    fs::create_dir_all(changed.parent().unwrap_or(&upper))?;
    let layout = Layout::Overlay { upper: upper.clone(), attributes: OverlayXattrs::User };
    let overlay = snapshots(&mut tracker(folder, &base, &tree, layout, "objects-overlay")?, &changed)?;

    let layout = Layout::Directory { root: tree.clone() };
    let mut whole = tracker(folder, &base, &tree, layout, "objects-whole")?;
    whole.save_base()?;
    let whole = snapshots(&mut whole, &tree.join(one))?;

    let store = folder.join("git");
    git(&tree, &store, &["init", "-q"])?;
    git(&tree, &store, &["add", "-A"])?;
    let git_ms = median(|round| {
        fs::write(tree.join(one), format!("changed again in round {round}\n"))?;
        git(&tree, &store, &["add", "-A"])?;
        git(&tree, &store, &["write-tree"])
    })?;
    Ok(serde_json::json!({
        "files": files,
        "base_take_ms": take,
        "base_save_ms": save,
        "base_load_ms": load,
        "base_file_bytes": fs::metadata(&manifest)?.len(),
        "snapshot_overlay_ms": overlay,
        "snapshot_whole_ms": whole,
        "git_add_write_tree_ms": git_ms,
        "git_to_overlay": git_ms / overlay,
        "git_to_whole": git_ms / whole,
    }))
}

#[allow(clippy::print_stdout, reason = "its answer")]
fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: forge-snapshot-bench FOLDER [FILES]")?);
    let files = arguments.next().and_then(|count| count.to_str()?.parse().ok()).unwrap_or(100_000);
    fs::create_dir(&folder)?;
    println!("{}", measure(&fs::canonicalize(&folder)?, files)?);
    Ok(())
}
