//! The Mandelbrot set, point by point.

/// Steps after which a point is taken for one of the set.
const STEPS_MAX: u32 = 200;

/// Looks at a picture of `rows` by `rows` points from -1.5 - i to 0.5 + i, and returns the steps that all points took
/// to leave the circle of radius 2.
#[inline(never)]
pub fn mandelbrot(rows: u32) -> u64 {
    let scale = 2.0 / f64::from(rows);
    let mut total = 0;
    for y in 0..rows {
        for x in 0..rows {
            total += u64::from(steps(f64::from(x) * scale - 1.5, f64::from(y) * scale - 1.0));
        }
    }
    total
}

#[inline]
fn steps(real: f64, imaginary: f64) -> u32 {
    let (mut re, mut im) = (0.0, 0.0);
    for step in 0..STEPS_MAX {
        let (re2, im2) = (re * re, im * im);
        if re2 + im2 > 4.0 {
            return step;
        }
        im = 2.0 * re * im + imaginary;
        re = re2 - im2 + real;
    }
    STEPS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_leave_when_they_should() {
        for (real, imaginary, expected) in
            [(-0.5, 0.0, STEPS_MAX), (-1.5, 0.0, STEPS_MAX), (-0.5, -1.0, 4), (-1.5, -1.0, 2)]
        {
            assert_eq!(steps(real, imaginary), expected, "{real} {imaginary}");
        }
        assert_eq!(mandelbrot(2), 2 * 200 + 4 + 2);
    }
}
