/* resized = W_y image W_x^T, the products and sums of images.py in the same order, in float32: the same bits, sooner.

   Compiled when the package is installed, where there is a compiler; images.py does without otherwise. Neither products and sums may
   be fused (-ffp-contract=off) nor sums be put in another order (no -ffast-math). */

#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif

#define ROUND 12582912.0f /* 1.5 * 2^23: what is added to it is rounded to an integer, halves to even */

typedef float pixel __attribute__((vector_size(16), aligned(4)));

/* image [y x c] -> resized [height width c]. Output row i is the sum over k < taps_y of weights_y[i, k] image[first_y[i] + k], columns
   likewise. row and line are for scratch: x c + 4 and width c + 4 numbers. */
WIDEST void resize(const uint8_t *image, int64_t x, int64_t c, uint8_t *resized, int64_t height, int64_t width, const int64_t *first_y,
                   const float *weights_y, int64_t taps_y, const int64_t *first_x, const float *weights_x, int64_t taps_x,
                   float *restrict row, float *restrict line) {
    int64_t old = x * c, new = width * c;
    for (int64_t i = 0; i < height; i++) {
        const uint8_t *source = image + first_y[i] * old;
        float weight = weights_y[i * taps_y];
        for (int64_t j = 0; j < old; j++) row[j] = weight * source[j];
        for (int64_t k = 1; k < taps_y; k++) {
            source += old;
            weight = weights_y[i * taps_y + k];
            for (int64_t j = 0; j < old; j++) row[j] += weight * source[j];
        }
        if (c == 3) { /* four numbers at once: the fourth is written over by the next pixel */
            for (int64_t j = 0; j < width; j++) {
                const float *from = row + first_x[j] * 3, *w = weights_x + j * taps_x;
                pixel sum = w[0] * *(const pixel *)from;
                for (int64_t k = 1; k < taps_x; k++) sum += w[k] * *(const pixel *)(from + 3 * k);
                *(pixel *)(line + 3 * j) = sum;
            }
        } else {
            for (int64_t j = 0; j < width; j++) {
                const float *from = row + first_x[j] * c, *w = weights_x + j * taps_x;
                for (int64_t n = 0; n < c; n++) {
                    float sum = w[0] * from[n];
                    for (int64_t k = 1; k < taps_x; k++) sum += w[k] * from[c * k + n];
                    line[j * c + n] = sum;
                }
            }
        }
        uint8_t *to = resized + i * new;
        for (int64_t j = 0; j < new; j++) to[j] = (uint8_t)(int32_t)((line[j] + ROUND) - ROUND);
    }
}
