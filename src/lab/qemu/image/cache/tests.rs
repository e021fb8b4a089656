//! The cache without apt: images come out of bytes.

use std::sync::mpsc;

use super::*;

fn assembled(tag: &str) -> Assembled {
    Assembled {
        kernel: format!("kernel {tag}").into(),
        kind: KernelKind::Pvh,
        initrd: format!("initrd {tag}").into(),
        packages: vec![Package {
            name: "tool".into(),
            version: "1".into(),
            sha256: tag.repeat(64),
        }],
    }
}

fn deb(cache: &Cache, tag: &str) -> PathBuf {
    let path = cache
        .packages()
        .join(format!("tool-{}.deb", tag.repeat(64)));
    fs::write(&path, tag).unwrap();
    path
}

#[test]
fn an_image_is_kept_by_its_content_and_found_again() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::new(home.path());
    assert!(cache.list().unwrap().is_empty());
    let _held = cache.lock(&mut |_| {}).unwrap();
    let layers = BTreeSet::from([Layer::Bench]);
    let first = cache.put(&assembled("a"), &layers, "builder").unwrap();
    let again = cache.put(&assembled("a"), &layers, "builder").unwrap();
    assert_eq!(first.id, again.id);
    let other = cache.put(&assembled("b"), &layers, "builder").unwrap();
    assert_ne!(first.id, other.id);
    let images = cache.list().unwrap();
    assert_eq!(images.len(), 2);
    let (builder, found) = images
        .iter()
        .find(|(_, image)| image.id == first.id)
        .unwrap();
    assert_eq!((builder.as_str(), found), ("builder", &again));
    assert_eq!(fs::read(&found.kernel).unwrap(), b"kernel a");
    assert_eq!((found.bytes, found.kind), (16, KernelKind::Pvh));
}

#[test]
fn what_is_not_whole_is_no_image_and_is_cleaned_away() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::new(home.path());
    let _held = cache.lock(&mut |_| {}).unwrap();
    let cut = cache
        .put(&assembled("a"), &BTreeSet::new(), "builder")
        .unwrap();
    fs::write(&cut.initrd, "ini").unwrap();
    fs::create_dir(home.path().join("images/.new-left-behind")).unwrap();
    let good = cache
        .put(&assembled("b"), &BTreeSet::new(), "builder")
        .unwrap();
    let (needed, old) = (deb(&cache, "b"), deb(&cache, "a"));
    assert_eq!(cache.list().unwrap().len(), 1);
    let keep = BTreeSet::from([good.id.clone()]);
    let removed = cache.remove(|_| keep.clone()).unwrap();
    assert!(
        removed.images.is_empty(),
        "what was no image is not counted as one"
    );
    assert_eq!(removed.packages, 1);
    assert!(removed.bytes > 0 && needed.exists() && !old.exists());
    assert_eq!(fs::read_dir(home.path().join("images")).unwrap().count(), 1);
    let removed = cache.remove(|_| BTreeSet::new()).unwrap();
    assert_eq!((removed.images, removed.packages), (vec![good.id], 1));
    assert!(cache.list().unwrap().is_empty());
}

#[test]
fn two_builders_do_not_build_at_once() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::new(home.path());
    let held = cache.lock(&mut |_| {}).unwrap();
    let (waits, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let waits = waits;
            let lock = cache.lock(&mut |said| waits.send(said.to_owned()).unwrap());
            lock.map(drop)
        });
        assert!(waiting.recv().unwrap().contains("another builder"));
        drop(held);
        second.join().unwrap().unwrap();
    });
}

#[test]
fn the_id_tells_the_parts_apart() {
    assert_ne!(id([b"ab", b"c"]), id([b"a", b"bc"]));
    assert_eq!(id([b"ab", b"c"]), id([b"ab", b"c"]));
}
