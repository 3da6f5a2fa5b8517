//! `cargo xtask kernels`: the same files on every kernel from 5.10 to the newest.

mod fetch;
mod image;
mod jobs;
mod machine;
mod progress;
mod summary;
mod table;

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::{
    fetch::Kernel,
    image::{Base, Programs},
    jobs::side_by_side,
    machine::Outcome,
    progress::Progress,
    table::{Entry, KERNELS},
};
use crate::{
    exec::{cargo, output, run as execute, shown, target},
    setup::{self, Tool, tool},
};

/// The target of files that need no library of the system they run on.
const TARGET: &str = "x86_64-unknown-linux-musl";

const TOOLS: [Tool; 9] = [
    tool(
        "x86_64-linux-musl-gcc",
        "musl-tools",
        "compiles what the static test program needs in C",
    ),
    tool("qemu-system-x86_64", "qemu-system-x86", "boots the kernels"),
    tool("apt-get", "apt", "fetches the kernels"),
    tool("dpkg", "dpkg", "unpacks the kernels"),
    tool("xz", "xz-utils", "unpacks kernel modules"),
    tool("openssl", "openssl", "makes a certificate for vsftpd"),
    tool("ip", "iproute2", "makes network namespaces in the machines"),
    tool("vsftpd", "vsftpd", "is the ftpd to guard in the machines"),
    tool("curl", "curl", "is one of the clients in the machines"),
];

/// What `kernels` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// List the kernels and end
    #[arg(long)]
    list: bool,
    /// Only these kernels of the list
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Another kernel: its bzImage
    #[arg(
        long,
        value_name = "PATH",
        requires = "modules",
        conflicts_with = "only"
    )]
    kernel: Option<PathBuf>,
    /// The folder with the other kernel's modules
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Look for newer versions of kernels that were fetched before
    #[arg(long)]
    refresh: bool,
    /// How many machines run at once
    #[arg(long, value_name = "NUMBER", default_value_t = JOBS)]
    jobs: usize,
}

/// How many machines run at once, unless told otherwise.
const JOBS: usize = 2;

impl Default for Arguments {
    fn default() -> Self {
        Self {
            list: false,
            only: Vec::new(),
            kernel: None,
            modules: None,
            refresh: false,
            jobs: JOBS,
        }
    }
}

/// One kernel to run, and what came of it.
pub(crate) struct Run {
    /// Its name.
    pub(crate) name: String,
    entry: Option<Entry>,
    outcome: Result<Outcome>,
}

/// The kernels to boot, fetched, and what boots them, installed.
pub(crate) struct Matrix<'a> {
    arguments: &'a Arguments,
    wanted: Vec<Option<Entry>>,
    folder: PathBuf,
}

/// Sets up, builds, boots every kernel, and prints what came of it.
pub(crate) fn kernels(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for entry in KERNELS {
            println!("{}", summary::listed(&entry));
        }
        return Ok(ExitCode::SUCCESS);
    }
    setup::setup()?;
    let runs = Matrix::prepare(arguments)?.run()?;
    let passed = runs.iter().all(|run| run.failures().is_empty());
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl<'a> Matrix<'a> {
    /// Installs what boots kernels, and fetches the kernels. An error says what this machine
    /// lacks; nothing has been tested then.
    pub(crate) fn prepare(arguments: &'a Arguments) -> Result<Self> {
        let wanted = wanted(arguments)?;
        setup::require(&TOOLS)?;
        let folder = target().join("kernels");
        let cache = folder.join("cache");
        fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
        for entry in wanted.iter().flatten() {
            fetch::kernel(entry, &cache, arguments.refresh)
                .with_context(|| format!("fetching kernel {}", entry.name))?;
        }
        Ok(Self {
            arguments,
            wanted,
            folder,
        })
    }

    /// Builds what runs in the machines, boots every kernel, and prints what came of it.
    pub(crate) fn run(self) -> Result<Vec<Run>> {
        let start = Instant::now();
        let base = Base::collect(&build()?, &self.folder.join("cache"))?;
        println!("kernels: built in {:.0} s", start.elapsed().as_secs_f64());

        let begun = Instant::now();
        let progress = Progress::new();
        let runs = side_by_side(self.arguments.jobs, self.wanted.clone(), |entry| Run {
            name: name_of(entry),
            entry,
            outcome: self.run_one(entry, &base, &progress),
        });
        let text = summary::tables(&runs);
        print!("\n{text}");
        let file = self.folder.join("summary.txt");
        fs::write(&file, &text).with_context(|| format!("writing {}", file.display()))?;
        println!("\nlogs: {}/*/serial.log", self.folder.display());
        println!("machines took {:.0} s", begun.elapsed().as_secs_f64());
        Ok(runs)
    }

    fn run_one(&self, entry: Option<Entry>, base: &Base, progress: &Progress) -> Result<Outcome> {
        let name = name_of(entry);
        let logs = self.folder.join(&name);
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        let kernel = match (entry, &self.arguments.kernel, &self.arguments.modules) {
            (Some(entry), ..) => fetch::kernel(&entry, &self.folder.join("cache"), false)?,
            (None, Some(image), Some(modules)) => Kernel {
                image: image.clone(),
                modules: modules.clone(),
            },
            (None, ..) => bail!("--kernel and --modules belong together"),
        };
        let image = logs.join("initramfs.cpio");
        base.write(&kernel.modules, &image)?;
        machine::run(&progress.line(&name), &kernel, &image, &logs)
    }
}

/// The kernels to run; `None` stands for the operator's own.
fn wanted(arguments: &Arguments) -> Result<Vec<Option<Entry>>> {
    if arguments.kernel.is_some() {
        return Ok(vec![None]);
    }
    for name in &arguments.only {
        if !KERNELS.iter().any(|entry| entry.name == name) {
            let names = KERNELS.map(|entry| entry.name).join(", ");
            bail!("no kernel {name:?}; there are: {names}");
        }
    }
    Ok(KERNELS
        .into_iter()
        .filter(|entry| {
            arguments.only.is_empty() || arguments.only.iter().any(|name| name == entry.name)
        })
        .map(Some)
        .collect())
}

fn name_of(entry: Option<Entry>) -> String {
    entry.map_or("own", |entry| entry.name).to_owned()
}

impl Run {
    /// How many tests have passed.
    pub(crate) fn passed(&self) -> u32 {
        self.outcome.as_ref().map_or(0, |outcome| outcome.passed)
    }

    /// One line for each thing that is not as it should be.
    pub(crate) fn failures(&self) -> Vec<String> {
        let outcome = match &self.outcome {
            Ok(outcome) => outcome,
            Err(error) => return vec![format!("{error:#}")],
        };
        let mut failures = outcome.failures.clone();
        if outcome.passed == 0 && failures.is_empty() {
            failures.push("no test ran".to_owned());
        }
        if let Some(entry) = self.entry {
            for (feature, used) in &outcome.features {
                let expected = !entry.degraded.contains(feature);
                if *used != expected {
                    failures.push(format!(
                        "{} is {}; the table of kernels says otherwise",
                        feature.label(),
                        if *used { "there" } else { "missing" }
                    ));
                }
            }
        }
        failures
    }
}

/// Builds everything that runs in the machines.
fn build() -> Result<Programs> {
    execute(
        Command::new("rustup")
            .args(["target", "add", TARGET])
            .stderr(Stdio::null()),
    )
    .context("the compiler's files for static programs")?;
    let mut build = cargo();
    build.args(["build", "--release", "--target", TARGET]);
    build.args(["--package", "ftpguard", "--package", "ftpguard-vm"]);
    execute(&mut build)?;
    let release = target().join(TARGET).join("release");
    Ok(Programs {
        ftpguard: release.join("ftpguard"),
        vm: release.join("ftpguard-vm"),
        suite: build_suite()?,
    })
}

/// Builds the suite of program runs in the kernel.
fn build_suite() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["test", "--no-run", "--release", "--target", TARGET]);
    build.args(["--package", "ftpguard", "--test", "programs"]);
    build.arg("--message-format=json-render-diagnostics");
    let Some(messages) = output(build.stderr(Stdio::inherit())) else {
        bail!("the suite does not build: {}", shown(&build));
    };
    let suite = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "programs")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .context("cargo names no test program")?;
    ensure!(suite.exists(), "{} is not there", suite.display());
    Ok(suite)
}
