//! A compile process: one module in, machine code or a refusal out.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use talka_core::limits;

use super::{
    super::{
        engine::{self, Compiled},
        walls,
    },
    Stdin, Stdout,
    frame::{self, FromCompiler, Ready, ToCompiler, VERSION},
    parent_is_alive,
};

/// Longest reason for a refusal: a sentence, whatever the engine may quote.
const REASON_BYTES_MAX: usize = 4096;

/// Serves one request and ends.
pub fn run_compiler() -> ExitCode {
    let mut walls = walls::begin(walls::Limits::Compiler);
    if !parent_is_alive() {
        return ExitCode::FAILURE;
    }
    walls::confine(&mut walls);
    walls::seal(&mut walls);
    let ready = FromCompiler::Ready(Ready { version: VERSION.into(), walls });
    match send(&ready, &[]).and_then(|()| serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> io::Result<()> {
    let Some(request) = frame::read::<ToCompiler>(&mut Stdin, limits::MODULE_BYTES_MAX)? else {
        return Ok(());
    };
    let ToCompiler::Compile = request.head;
    match engine::compile(&request.body) {
        Ok(Compiled { transformed, code }) => send(&FromCompiler::Compiled { transformed }, &code),
        Err(error) => {
            let reason = error.to_string();
            let cut = reason.floor_char_boundary(REASON_BYTES_MAX);
            send(&FromCompiler::Refused { reason: reason[..cut].to_owned() }, &[])
        }
    }
}

fn send(head: &FromCompiler, body: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame::encode_head(&mut bytes, head, body.len())?;
    Stdout.write_all(&bytes)?;
    Stdout.write_all(body)
}
