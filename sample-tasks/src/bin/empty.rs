//! Does nothing, in the smallest module that is a WASI command: for measuring everything else.
//!
//! * arguments: none are read
//! * input: none is read
//! * output: none

// With std it would be 200 times as large, for an allocator and a panic handler that it never needs.
#![cfg_attr(target_os = "wasi", no_std, no_main)]

#[cfg(target_os = "wasi")]
#[expect(unsafe_code, reason = "without std, start-up code and panic handler are named by hand")]
mod guest {
    // The start-up code needs WASI's C library.
    #[link(name = "c")]
    unsafe extern "C" {}

    // SAFETY: the C library's own definition of this name, which would fetch arguments for a
    // `main`, is linked only when there is no other.
    #[unsafe(no_mangle)]
    extern "C" fn __main_void() -> i32 {
        0
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        core::arch::wasm32::unreachable()
    }
}

#[cfg(not(target_os = "wasi"))]
fn main() {}
