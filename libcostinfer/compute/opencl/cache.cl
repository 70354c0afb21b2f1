/* cache.cl - what an element of the cache of keys and values is.  Stored as half it needs no half arithmetic,
 * which many devices lack. */

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
