/* Post: copies what another rank of this host is to read. Internal to parallel/comm.
 *
 * A line that another processor has read is written only after that processor has given it up; one line after the
 * other, that takes ten times as long as the copy itself. Stores that pass the caches wait for nobody, and what they
 * left in memory is read as fast as anything else. */
#ifndef CRIA_PARALLEL_COMM_POST_H
#define CRIA_PARALLEL_COMM_POST_H

#include <stddef.h>

/* As memcpy; what was copied is there for whoever sees an atomic store that follows. */
void cria_post(void *to, const void *from, size_t bytes);

#endif
