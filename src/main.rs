//! The `homing` program. Everything it does stands in `cli/`.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    homing::cli::run()
}
