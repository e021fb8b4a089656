//! From the package lists to a kernel and an initrd, in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::apt::{self, Apt};
use super::content::{
    APPLETS, BOOT_MODULES, FOLDERS, KERNEL, LAZY_MODULES, LINKS, Name, OPTIONAL_MODULES, OWN,
    POSTGRES_COMMANDS, Pick, own_of, picks,
};
use super::deb::Entry;
use super::kernel::{self, KernelKind};
use super::module::Modules;
use super::pool::Pool;
use super::stanza::Stanza;
use super::tree::Node;
use super::{ImageError, Layer, Package};

/// An image on its way to the cache.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) kernel: Vec<u8>,
    pub(super) kind: KernelKind,
    pub(super) initrd: Vec<u8>,
    pub(super) packages: Vec<Package>,
}

/// Makes the image of these layers.
pub(super) fn assemble(
    apt: &Apt,
    layers: &BTreeSet<Layer>,
    progress: &mut dyn FnMut(&str),
) -> Result<Assembled, ImageError> {
    progress("asking apt for the guest's packages");
    let picks = picks(layers);
    let names = resolve_names(&picks)?;
    let mut all: Vec<String> = names.values().cloned().collect();
    all.sort();
    all.dedup();
    let stanzas = apt::require(&all)?;
    let mut pool = Pool::new(apt);
    pool.add(&stanzas.values().collect::<Vec<_>>(), progress)?;
    for pick in &picks {
        take_pick(&mut pool, package_of(&names, pick.package)?, pick)?;
    }
    pool.resolve(progress)?;
    progress("assembling kernel and initrd");
    let linux = package_of(&names, KERNEL)?;
    put_modules(&mut pool, linux)?;
    if layers.contains(&Layer::Postgres) {
        link_postgres(&mut pool, &picks, &names)?;
    }
    put_own(&mut pool, layers);
    let (kind, kernel) = take_kernel(&pool, linux)?;
    let initrd = pool.tree.archive().map_err(|source| ImageError::Io {
        doing: "writing the initrd".into(),
        source,
    })?;
    Ok(Assembled {
        kernel,
        kind,
        initrd,
        packages: pool.packages(),
    })
}

/// The packages' real names, by what stands for them in the table.
type Names = BTreeMap<&'static str, String>;

const fn key(name: Name) -> &'static str {
    match name {
        Name::Fixed(name) => name,
        Name::Through { meta, .. } => meta,
    }
}

fn package_of(names: &Names, name: Name) -> Result<&str, ImageError> {
    let found = names.get(key(name)).map(String::as_str);
    found.ok_or_else(|| ImageError::Unknown {
        package: key(name).to_owned(),
    })
}

fn resolve_names(picks: &[Pick]) -> Result<Names, ImageError> {
    let wanted = || picks.iter().map(|pick| pick.package).chain([KERNEL]);
    let metas: Vec<String> = wanted()
        .filter(|name| matches!(name, Name::Through { .. }))
        .map(|name| key(name).to_owned())
        .collect();
    let stanzas = apt::require(&metas)?;
    wanted()
        .map(|name| match name {
            Name::Fixed(name) => Ok((name, name.to_owned())),
            Name::Through { meta, prefix } => Ok((meta, depended(&stanzas, meta, prefix)?)),
        })
        .collect()
}

fn depended(
    stanzas: &BTreeMap<String, Stanza>,
    meta: &str,
    prefix: &str,
) -> Result<String, ImageError> {
    // The version begins with a digit: `postgresql-15`, not `postgresql-common`.
    let versioned = |name: &&String| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let depends = stanzas.get(meta).map(|stanza| &stanza.depends);
    let found = depends.and_then(|depends| depends.iter().find(versioned));
    found
        .cloned()
        .ok_or_else(|| ImageError::package(meta, format!("it depends on no {prefix}VERSION")))
}

fn take_pick(pool: &mut Pool<'_>, package: &str, pick: &Pick) -> Result<(), ImageError> {
    for path in pick.paths {
        let files = &pool.package(package)?.files;
        if path.ends_with('/') {
            let left_out = |path: &String| pick.except.iter().any(|part| path.contains(part));
            let inside = files.keys().filter(|file| file.starts_with(path));
            let inside: Vec<String> = inside.filter(|file| !left_out(file)).cloned().collect();
            for file in inside {
                pool.take(package, &file)?;
            }
            continue;
        }
        let (path, may_be_absent) = match path.strip_prefix('?') {
            Some(path) => (path, true),
            None => (*path, false),
        };
        if files.contains_key(path) {
            pool.take(package, path)?;
        } else if !may_be_absent {
            return Err(ImageError::package(package, format!("it has no {path}")));
        }
    }
    Ok(())
}

/// Puts the modules and the two lists that the guest's init goes by.
fn put_modules(pool: &mut Pool<'_>, linux: &str) -> Result<(), ImageError> {
    let (mut boot, mut on_demand, mut objects) = (Vec::new(), String::new(), BTreeMap::new());
    {
        let modules = Modules::new(linux, &pool.package(linux)?.files);
        let optional = OPTIONAL_MODULES.iter().filter(|name| modules.knows(name));
        for name in optional.chain(&BOOT_MODULES) {
            for module in modules.closure(name)? {
                if !boot.contains(&module.name) {
                    boot.push(module.name.clone());
                }
                objects.insert(module.name, module.object);
            }
        }
        for name in LAZY_MODULES {
            let closure = modules.closure(name)?;
            let order: Vec<&str> = closure.iter().map(|module| module.name.as_str()).collect();
            on_demand.push_str(&format_line(name, &order));
            objects.extend(
                closure
                    .into_iter()
                    .map(|module| (module.name, module.object)),
            );
        }
    }
    for (name, data) in objects {
        put_file(pool, &format!("modules/{name}.ko"), 0o644, data);
    }
    put_file(
        pool,
        "modules/boot",
        0o644,
        format!("{}\n", boot.join(" ")).into(),
    );
    put_file(pool, "modules/on-demand", 0o644, on_demand.into());
    Ok(())
}

fn format_line(name: &str, modules: &[&str]) -> String {
    format!("{name} {}\n", modules.join(" "))
}

fn put_file(pool: &mut Pool<'_>, path: &str, mode: u32, data: Vec<u8>) {
    pool.tree.put(path, Node::File { mode, data });
}

fn link_postgres(pool: &mut Pool<'_>, picks: &[Pick], names: &Names) -> Result<(), ImageError> {
    for pick in picks
        .iter()
        .filter(|pick| key(pick.package).starts_with("postgresql"))
    {
        let package = package_of(names, pick.package)?.to_owned();
        for command in POSTGRES_COMMANDS {
            let end = format!("/bin/{command}");
            let files = &pool.package(&package)?.files;
            if let Some(path) = files.keys().find(|path| path.ends_with(&end)).cloned() {
                pool.tree
                    .link(&format!("usr/bin/{command}"), &format!("/{path}"));
            }
        }
    }
    Ok(())
}

/// The files, folders and links that no package brings.
fn put_own(pool: &mut Pool<'_>, layers: &BTreeSet<Layer>) {
    let (more, links) = own_of(layers);
    for own in OWN.iter().chain(&more) {
        put_file(pool, own.path, own.mode, own.text.into());
    }
    for (path, mode) in FOLDERS {
        pool.tree.put(path, Node::Folder { mode });
    }
    for (path, target) in LINKS.iter().chain(&links) {
        pool.tree.link(path, target);
    }
    for applet in APPLETS.split_whitespace() {
        let places = ["usr/bin", "usr/sbin"].map(|folder| format!("{folder}/{applet}"));
        if !places.iter().any(|place| pool.tree.has(place)) {
            pool.tree.link(&places[0], "busybox");
        }
    }
    // The kernel opens it for init before anything can be mounted.
    let number = (5, 1);
    pool.tree.put(
        "dev/console",
        Node::Device {
            mode: 0o600,
            number,
        },
    );
}

fn take_kernel(pool: &Pool<'_>, linux: &str) -> Result<(KernelKind, Vec<u8>), ImageError> {
    let mut files = pool.package(linux)?.files.iter();
    let image = files.find_map(|(path, entry)| match entry {
        Entry::File { data, .. } if path.starts_with("boot/vmlinuz") => Some(data.clone()),
        _ => None,
    });
    let image = image.ok_or_else(|| ImageError::package(linux, "it has no boot/vmlinuz"))?;
    kernel::best(image).map_err(|why| ImageError::Kernel {
        kernel: linux.to_owned(),
        why,
    })
}
