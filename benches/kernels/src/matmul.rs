//! A product of matrices, row by row.

/// How often the product is added up, so that a matrix that fits the caches keeps a CPU busy for long enough.
const ROUNDS: usize = 8;

/// Multiplies two matrices of `rows` by `rows` numbers, and returns the bits of the sum of all elements of the product, taken
/// eight times.
#[inline(never)]
pub fn matmul(rows: u32) -> u64 {
    let n = rows as usize;
    let (a, b) = (matrix(n, 97, 0.5), matrix(n, 89, 0.25));
    let mut product = vec![0.0; n * n];
    for _ in 0..ROUNDS {
        add_product(n, &a, &b, &mut product);
    }
    product.iter().sum::<f64>().to_bits()
}

fn matrix(n: usize, period: u32, step: f64) -> Vec<f64> {
    (0..period).cycle().take(n * n).map(|number| f64::from(number) * step).collect()
}

/// Adds `a` · `b` to `sum`: each element of `a` times a row of `b`, so that memory is read in its order.
fn add_product(n: usize, a: &[f64], b: &[f64], sum: &mut [f64]) {
    for (a_row, sum_row) in a.chunks_exact(n.max(1)).zip(sum.chunks_exact_mut(n.max(1))) {
        for (factor, b_row) in a_row.iter().zip(b.chunks_exact(n.max(1))) {
            for (sum, element) in sum_row.iter_mut().zip(b_row) {
                *sum += factor * element;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_two_rows_is_the_one_of_the_textbook() {
        let mut sum = vec![0.0, 0.0, 0.0, 100.0];
        add_product(2, &[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0], &mut sum);
        assert_eq!(sum, [19.0, 22.0, 43.0, 150.0]);
    }

    #[test]
    fn the_sum_of_all_elements_is_that_of_column_sums_times_row_sums() {
        let n = 20;
        let (a, b) = (matrix(n, 97, 0.5), matrix(n, 89, 0.25));
        let column = |k: usize| (0..n).map(|i| a[i * n + k]).sum::<f64>();
        let row = |k: usize| b[k * n..(k + 1) * n].iter().sum::<f64>();
        let expected: f64 = (0..n).map(|k| column(k) * row(k)).sum();
        // All of it are eighths far below 2^53: exact in any order.
        assert_eq!(f64::from_bits(matmul(20)).to_bits(), (8.0 * expected).to_bits());
    }

    #[test]
    fn no_rows_have_the_sum_zero() {
        assert_eq!(f64::from_bits(matmul(0)).abs().to_bits(), 0);
    }
}
