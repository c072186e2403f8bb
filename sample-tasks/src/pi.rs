//! How many random points of the unit square lie inside the quarter circle.

/// Random bytes that make one point: two coordinates of 32 bits.
pub const POINT_BYTES: usize = 8;

/// Of the points in `random`, how many have a distance from the origin below 1.
///
/// Integers only: with x and y in units of 2⁻³², x² + y² < 1 exactly when the sum of the squares
/// doesn't overflow 64 bits. A last, incomplete point is left out.
pub fn points_inside(random: &[u8]) -> u64 {
    let (points, _) = random.as_chunks::<POINT_BYTES>();
    let inside = points.iter().filter(|&&[a, b, c, d, e, f, g, h]| {
        let x = u64::from(u32::from_le_bytes([a, b, c, d]));
        let y = u64::from(u32::from_le_bytes([e, f, g, h]));
        (x * x).checked_add(y * y).is_some()
    });
    inside.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(x: u32, y: u32) -> Vec<u8> {
        [x.to_le_bytes(), y.to_le_bytes()].concat()
    }

    #[test]
    fn points_on_either_side_of_the_circle_are_told_apart() {
        let half = 1 << 31;
        for (x, y, inside) in [
            (0, 0, 1),
            (u32::MAX, 0, 1),
            (u32::MAX, 92_681, 1),
            (u32::MAX, 92_682, 0),
            (half, half, 1),
            (u32::MAX, u32::MAX, 0),
            // 2^32 / sqrt(2) = 3_037_000_499.97
            (3_037_000_499, 3_037_000_499, 1),
            (3_037_000_500, 3_037_000_500, 0),
        ] {
            assert_eq!(points_inside(&point(x, y)), inside, "({x}, {y})");
        }
    }

    #[test]
    fn incomplete_point_is_left_out() {
        assert_eq!(points_inside(&[]), 0);
        assert_eq!(points_inside(&[0; 7]), 0);
        assert_eq!(points_inside(&[0; 23]), 2);
    }

    #[test]
    fn grid_of_points_gives_pi() {
        let side = 1_000_u32;
        let step = u32::MAX / side;
        let grid: Vec<u8> = (0..side)
            .flat_map(|row| (0..side).map(move |column| (row, column)))
            .flat_map(|(row, column)| point(row * step + step / 2, column * step + step / 2))
            .collect();
        let inside = points_inside(&grid);
        assert!((785_300..785_500).contains(&inside), "{inside} of 10^6");
    }
}
