//! Rebuilds when bpf-linker changes: cargo does not know that it links with it.

fn main() {
    if let Ok(linker) = which::which("bpf-linker") {
        println!("cargo:rerun-if-changed={}", linker.display());
    }
}
