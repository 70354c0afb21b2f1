/* cache.cl - the type of an element of the KV cache.  Half is for storage alone: many devices lack half
 * arithmetic. */

#if HALF_CACHE
#define CACHE        half
#define CACHE_BITS   ushort
#define CACHE_LOAD16 vloada_half16
#define CACHE_STORE  vstore_half_rte
#else
#define CACHE                      float
#define CACHE_BITS                 uint
#define CACHE_LOAD16               vload16
#define CACHE_STORE(value, at, to) (to)[at] = (value)
#endif
