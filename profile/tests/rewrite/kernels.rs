//! What float-heavy programs do all day, in three kernels: the same bytes on every engine, and the bytes that
//! this machine computes natively.
//!
//! Each kernel runs twice: on ordinary numbers, and on numbers that end in infinities and NaNs. A NaN that is
//! stored is the canonical one.

use talka_profile::{Options, rewrite};

use crate::{
    machine::{COMPILERS, Compiler, Exit, Machine, PLENTY},
    scramble::scramble,
};

/// What `_start` leaves in its first `length` bytes of memory, which every engine must agree on.
fn run(text: &str, length: usize) -> Vec<u8> {
    let wasm = wat::parse_str(text).expect(text);
    let [open, settled] = [false, true].map(|settle_nans| {
        rewrite(&wasm, &Options { settle_nans, ..Options::default() }).expect("within the profile").wasm
    });
    let canonical = Machine::new(Compiler::Canonical);
    let oracle = canonical.run_for_bytes(&canonical.compile(&open).expect("valid"), PLENTY, length);
    assert_eq!(oracle.0.exit, Exit::Returned);
    for compiler in COMPILERS {
        let machine = Machine::new(compiler);
        for (wasm, cpu) in [(settled.clone(), "this CPU"), (scramble(&settled), "the awkward one")] {
            let found = machine.run_for_bytes(&machine.compile(&wasm).expect("valid"), PLENTY, length);
            assert!(found == oracle, "{compiler:?} on {cpu}: {:?}, not {:?}", found.0, oracle.0);
        }
    }
    oracle.1
}

/// Doubles as they lie in memory, with every NaN in its one form.
fn bytes64(numbers: impl IntoIterator<Item = f64>) -> Vec<u8> {
    let one_form = |number: f64| if number.is_nan() { 0x7ff8_0000_0000_0000 } else { number.to_bits() };
    numbers.into_iter().flat_map(|number| one_form(number).to_le_bytes()).collect()
}

/// The same for singles.
fn bytes32(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
    let one_form = |number: f32| if number.is_nan() { 0x7fc0_0000 } else { number.to_bits() };
    numbers.into_iter().flat_map(|number| one_form(number).to_le_bytes()).collect()
}

/// A data segment at address 0.
fn data(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const 0) \"{text}\")")
}

const BODIES: usize = 5;
/// Position, velocity, mass.
type Body = [f64; 7];

fn bodies() -> [Body; BODIES] {
    let mut bodies = [[0.0; 7]; BODIES];
    for (index, body) in (0u8..).zip(&mut bodies) {
        let at = f64::from(index);
        *body = [
            at * 4.7 - 3.0,
            1.1 * at * at,
            0.3 - at,
            0.02 * at,
            0.5 - 0.1 * at,
            0.03,
            39.0 / (1.0 + 9.0 * at),
        ];
    }
    bodies
}

const STEPS: u32 = 400;

/// One step of the problem of the *Computer Language Benchmarks Game*, in the order of its operations.
fn advance(bodies: &mut [Body; BODIES], dt: f64) {
    for i in 0..BODIES {
        for j in i + 1..BODIES {
            let [dx, dy, dz] = [0, 1, 2].map(|axis| bodies[i][axis] - bodies[j][axis]);
            let square = dx * dx + dy * dy + dz * dz;
            let magnitude = dt / (square * square.sqrt());
            for (axis, d) in [dx, dy, dz].into_iter().enumerate() {
                bodies[i][3 + axis] -= d * bodies[j][6] * magnitude;
                bodies[j][3 + axis] += d * bodies[i][6] * magnitude;
            }
        }
    }
    for body in bodies {
        for axis in 0..3 {
            body[axis] += dt * body[3 + axis];
        }
    }
}

fn n_body(bodies: &[Body; BODIES]) -> String {
    let kick = |axis: usize, d: &str| {
        let velocity = 24 + 8 * axis;
        format!(
            "(f64.store offset={velocity} (local.get $i) (f64.sub (f64.load offset={velocity} (local.get $i))
                (f64.mul (f64.mul (local.get {d}) (f64.load offset=48 (local.get $j))) (local.get $magnitude))))
             (f64.store offset={velocity} (local.get $j) (f64.add (f64.load offset={velocity} (local.get $j))
                (f64.mul (f64.mul (local.get {d}) (f64.load offset=48 (local.get $i))) (local.get $magnitude))))"
        )
    };
    let drift = |axis: usize| {
        let (position, velocity) = (8 * axis, 24 + 8 * axis);
        format!(
            "(f64.store offset={position} (local.get $i) (f64.add (f64.load offset={position} (local.get $i))
                (f64.mul (f64.const 0.01) (f64.load offset={velocity} (local.get $i)))))"
        )
    };
    let end = 56 * BODIES;
    let kicks = kick(0, "$dx") + &kick(1, "$dy") + &kick(2, "$dz");
    let drifts: String = (0..3).map(drift).collect();
    format!(
        r#"(module (memory (export "memory") 1) {data}
        (func $advance (local $i i32) (local $j i32)
            (local $dx f64) (local $dy f64) (local $dz f64) (local $square f64) (local $magnitude f64)
            loop $each
                (local.set $j (i32.add (local.get $i) (i32.const 56)))
                block $last (br_if $last (i32.ge_u (local.get $j) (i32.const {end})))
                loop $other
                    (local.set $dx (f64.sub (f64.load (local.get $i)) (f64.load (local.get $j))))
                    (local.set $dy (f64.sub (f64.load offset=8 (local.get $i)) (f64.load offset=8 (local.get $j))))
                    (local.set $dz (f64.sub (f64.load offset=16 (local.get $i)) (f64.load offset=16 (local.get $j))))
                    (local.set $square (f64.add (f64.add (f64.mul (local.get $dx) (local.get $dx))
                        (f64.mul (local.get $dy) (local.get $dy))) (f64.mul (local.get $dz) (local.get $dz))))
                    (local.set $magnitude (f64.div (f64.const 0.01)
                        (f64.mul (local.get $square) (f64.sqrt (local.get $square)))))
                    {kicks}
                    (br_if $other (i32.lt_u (local.tee $j (i32.add (local.get $j) (i32.const 56))) (i32.const {end})))
                end end
                (br_if $each (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 56))) (i32.const {end})))
            end
            (local.set $i (i32.const 0))
            loop $each
                {drifts}
                (br_if $each (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 56))) (i32.const {end})))
            end)
        (func (export "_start") (local $step i32)
            loop
                call $advance
                (br_if 0 (i32.lt_u (local.tee $step (i32.add (local.get $step) (i32.const 1))) (i32.const {STEPS})))
            end))"#,
        data = data(&bytes64(bodies.iter().flatten().copied()))
    )
}

#[test]
fn n_body_leaves_the_bytes_that_it_leaves_natively() {
    let ordinary = bodies();
    // At the same place: their distance is 0, and the force is infinite times 0.
    let mut colliding = ordinary;
    let (position, second) = (ordinary[1], &mut colliding[2]);
    second[..3].copy_from_slice(&position[..3]);
    for (bodies, nans) in [(ordinary, false), (colliding, true)] {
        let mut native = bodies;
        for _ in 0..STEPS {
            advance(&mut native, 0.01);
        }
        let native: Vec<f64> = native.into_iter().flatten().collect();
        assert_eq!(native.iter().any(|number| number.is_nan()), nans);
        assert_eq!(run(&n_body(&bodies), 8 * native.len()), bytes64(native));
    }
}

/// Rows and columns of a matrix of singles.
const SIZE: usize = 16;
const MATRIX_BYTES: usize = 4 * SIZE * SIZE;

fn product(a: &[f32], b: &[f32]) -> Vec<f32> {
    let cell = |at: usize| {
        let (row, column) = (at / SIZE, at % SIZE);
        (0..SIZE).fold(0.0, |sum, k| sum + a[row * SIZE + k] * b[k * SIZE + column])
    };
    (0..SIZE * SIZE).map(cell).collect()
}

fn matrix_product(a: &[f32], b: &[f32]) -> String {
    let (row, end) = (4 * SIZE, MATRIX_BYTES);
    format!(
        r#"(module (memory (export "memory") 1) {data}
        (func (export "_start") (local $row i32) (local $column i32) (local $k i32) (local $sum v128)
            loop $rows
                (local.set $column (i32.const 0))
                loop $columns
                    (local.set $sum (v128.const i64x2 0 0))
                    (local.set $k (i32.const 0))
                    loop $terms
                        (local.set $sum (f32x4.add (local.get $sum) (f32x4.mul
                            (v128.load32_splat (i32.add (local.get $row) (i32.shl (local.get $k) (i32.const 2))))
                            (v128.load offset={end}
                                (i32.add (i32.mul (local.get $k) (i32.const {row})) (local.get $column))))))
                        (br_if $terms (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 1))) (i32.const {SIZE})))
                    end
                    (v128.store offset={result} (i32.add (local.get $row) (local.get $column)) (local.get $sum))
                    (br_if $columns (i32.lt_u
                        (local.tee $column (i32.add (local.get $column) (i32.const 16))) (i32.const {row})))
                end
                (br_if $rows (i32.lt_u (local.tee $row (i32.add (local.get $row) (i32.const {row}))) (i32.const {end})))
            end))"#,
        result = 2 * end,
        data = data(&bytes32(a.iter().chain(b).copied()))
    )
}

#[test]
fn a_matrix_product_leaves_the_bytes_that_it_leaves_natively() {
    let numbers = |step: u16| (0..256u16).map(move |at| f32::from(at * step % 257) / 7.0 - 18.0);
    let (mut a, b): (Vec<_>, Vec<_>) = (numbers(31).collect(), numbers(91).collect());
    for nans in [false, true] {
        if nans {
            // Infinite times 0 in one row, infinite minus infinite in another.
            (a[SIZE], a[3 * SIZE], a[3 * SIZE + 1]) = (f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY);
        }
        let native = product(&a, &b);
        assert_eq!(native.iter().any(|number| number.is_nan()), nans);
        let memory = run(&matrix_product(&a, &b), 3 * MATRIX_BYTES);
        assert_eq!(memory[2 * MATRIX_BYTES..], bytes32(native));
    }
}

/// Pixels on a side.
const PIXELS: u8 = 40;
const TURNS: u8 = 200;

/// For each pixel the last point, and how many turns it took to leave the circle of radius `bound`.
fn mandelbrot_natively(bound: f64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..u16::from(PIXELS) * u16::from(PIXELS) {
        let side = f64::from(PIXELS);
        let (row, column) = (at / u16::from(PIXELS), at % u16::from(PIXELS));
        let (cx, cy) = (f64::from(column) / side * 3.0 - 2.25, f64::from(row) / side * 3.0 - 1.5);
        let (mut x, mut y, mut turns) = (0.0, 0.0, 0u64);
        loop {
            (x, y) = (x * x - y * y + cx, (x + x) * y + cy);
            turns += 1;
            if x * x + y * y > bound || turns >= u64::from(TURNS) {
                break;
            }
        }
        bytes.extend(bytes64([x, y]));
        bytes.extend(turns.to_le_bytes());
    }
    bytes
}

fn mandelbrot(bound: &str) -> String {
    let count = u32::from(PIXELS) * u32::from(PIXELS);
    format!(
        r#"(module (memory (export "memory") 1)
        (func (export "_start")
            (local $at i32) (local $turns i32) (local $cx f64) (local $cy f64) (local $x f64) (local $y f64) (local $t f64)
            loop $pixels
                (local.set $cx (f64.sub (f64.mul (f64.div (f64.convert_i32_u
                    (i32.rem_u (local.get $at) (i32.const {PIXELS}))) (f64.const {PIXELS})) (f64.const 3)) (f64.const 2.25)))
                (local.set $cy (f64.sub (f64.mul (f64.div (f64.convert_i32_u
                    (i32.div_u (local.get $at) (i32.const {PIXELS}))) (f64.const {PIXELS})) (f64.const 3)) (f64.const 1.5)))
                (local.set $x (f64.const 0)) (local.set $y (f64.const 0)) (local.set $turns (i32.const 0))
                block $out loop $point
                    (local.set $t (f64.add (f64.sub (f64.mul (local.get $x) (local.get $x))
                        (f64.mul (local.get $y) (local.get $y))) (local.get $cx)))
                    (local.set $y (f64.add (f64.mul (f64.add (local.get $x) (local.get $x)) (local.get $y)) (local.get $cy)))
                    (local.set $x (local.get $t))
                    (local.set $turns (i32.add (local.get $turns) (i32.const 1)))
                    (br_if $out (f64.gt (f64.add (f64.mul (local.get $x) (local.get $x))
                        (f64.mul (local.get $y) (local.get $y))) (f64.const {bound})))
                    (br_if $point (i32.lt_u (local.get $turns) (i32.const {TURNS})))
                end end
                (f64.store (i32.mul (local.get $at) (i32.const 24)) (local.get $x))
                (f64.store offset=8 (i32.mul (local.get $at) (i32.const 24)) (local.get $y))
                (i64.store offset=16 (i32.mul (local.get $at) (i32.const 24)) (i64.extend_i32_u (local.get $turns)))
                (br_if $pixels (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const {count})))
            end))"#
    )
}

#[test]
fn the_mandelbrot_set_leaves_the_bytes_that_it_leaves_natively() {
    // Without a bound, points outside go on to infinity, and to infinity minus infinity.
    for (bound, text) in [(4.0, "4"), (f64::INFINITY, "inf")] {
        let native = mandelbrot_natively(bound);
        let nan = bytes64([f64::NAN]);
        assert_eq!(native.chunks(8).any(|word| word == nan), bound.is_infinite());
        assert_eq!(run(&mandelbrot(text), native.len()), native);
    }
}
