/* hub_cache.h - a hint for a user who names a folder of Hugging Face's cache in place of the model in it. */
#ifndef HUB_CACHE_H
#define HUB_CACHE_H

/* Puts where the model is behind the thread's message when `folder` is the root of a cached model
 * (models--NAME, with refs/ and snapshots/) or of the whole cache; else leaves the message alone. */
void hub_cache_hint(const char *folder);

#endif
