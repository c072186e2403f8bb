//! The sun and the four large planets, in steps of a hundredth of a year.

/// A body: place (astronomical units), velocity (the same per year), mass.
#[derive(Clone, Copy)]
struct Body {
    place: [f64; 3],
    velocity: [f64; 3],
    mass: f64,
}

const STEP_YEARS: f64 = 0.01;
const DAYS_PER_YEAR: f64 = 365.24;
/// Mass of the sun in units in which the constant of gravity is 1.
const SUN: f64 = 4.0 * std::f64::consts::PI * std::f64::consts::PI;
const BODIES: usize = 5;

const fn planet(place: [f64; 3], per_day: [f64; 3], suns: f64) -> Body {
    let [x, y, z] = per_day;
    Body { place, velocity: [x * DAYS_PER_YEAR, y * DAYS_PER_YEAR, z * DAYS_PER_YEAR], mass: suns * SUN }
}

const START: [Body; BODIES] = [
    Body { place: [0.0; 3], velocity: [0.0; 3], mass: SUN },
    planet(
        [4.841_431_442_464_721, -1.160_320_044_027_428_4, -1.036_220_444_711_231_1e-1],
        [1.660_076_642_744_037e-3, 7.699_011_184_197_404e-3, -6.904_600_169_720_63e-5],
        9.547_919_384_243_266e-4,
    ),
    planet(
        [8.343_366_718_244_58, 4.124_798_564_124_305, -4.035_234_171_143_214e-1],
        [-2.767_425_107_268_624e-3, 4.998_528_012_349_172e-3, 2.304_172_975_737_639_3e-5],
        2.858_859_806_661_308e-4,
    ),
    planet(
        [12.894_369_562_139_13, -15.111_151_401_698_631, -2.233_075_788_926_557_3e-1],
        [2.964_601_375_647_616e-3, 2.378_471_739_594_809_5e-3, -2.965_895_685_402_375_6e-5],
        4.366_244_043_351_563e-5,
    ),
    planet(
        [15.379_697_114_850_917, -25.919_314_609_987_964, 1.792_587_729_503_711_8e-1],
        [2.680_677_724_903_893_2e-3, 1.628_241_700_382_423e-3, -9.515_922_545_197_159e-5],
        5.151_389_020_466_114_5e-5,
    ),
];

/// Follows them for that many steps, and returns the bits of their energy.
#[inline(never)]
pub fn nbody(steps: u32) -> u64 {
    let mut bodies = START;
    // The sun moves so that the whole rests.
    for axis in 0..3 {
        let momentum: f64 = bodies.iter().map(|body| body.velocity[axis] * body.mass).sum();
        bodies[0].velocity[axis] = -momentum / SUN;
    }
    for _ in 0..steps {
        advance(&mut bodies);
    }
    energy(&bodies).to_bits()
}

#[inline]
fn advance(bodies: &mut [Body; BODIES]) {
    for i in 0..BODIES {
        for j in i + 1..BODIES {
            let apart = difference(bodies[i].place, bodies[j].place);
            let squared = apart[0] * apart[0] + apart[1] * apart[1] + apart[2] * apart[2];
            let pull = STEP_YEARS / (squared * squared.sqrt());
            let (of_i, of_j) = (bodies[i].mass * pull, bodies[j].mass * pull);
            for (axis, apart) in apart.into_iter().enumerate() {
                bodies[i].velocity[axis] -= apart * of_j;
                bodies[j].velocity[axis] += apart * of_i;
            }
        }
    }
    for body in bodies {
        for axis in 0..3 {
            body.place[axis] += STEP_YEARS * body.velocity[axis];
        }
    }
}

fn difference(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn energy(bodies: &[Body; BODIES]) -> f64 {
    let mut sum = 0.0;
    for (i, body) in bodies.iter().enumerate() {
        let [x, y, z] = body.velocity;
        sum += 0.5 * body.mass * (x * x + y * y + z * z);
        for other in &bodies[i + 1..] {
            let [x, y, z] = difference(body.place, other.place);
            sum -= body.mass * other.mass / (x * x + y * y + z * z).sqrt();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that the Computer Language Benchmarks Game gives for its program of this name.
    #[test]
    fn energy_is_what_everybody_gets() {
        for (steps, expected) in [(0, "-0.169075164"), (1000, "-0.169087605")] {
            assert_eq!(format!("{:.9}", f64::from_bits(nbody(steps))), expected, "after {steps} steps");
        }
    }
}
