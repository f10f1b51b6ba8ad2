/* Read-only file mappings and paths on POSIX. */
#include "base/file.h"

#include "base/checked.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The status that fits errno after a failed open or stat. */
static cria_status status_of_errno(int code) {
    if (code == ENOENT || code == ENOTDIR) return CRIA_ERR_NOT_FOUND;
    return code == ENOMEM ? CRIA_ERR_MEMORY : CRIA_ERR_IO;
}

cria_status cria_mapping_open(const char *path, cria_mapping *out, cria_error *err) {
    *out = (cria_mapping){0};
    /* Without O_NONBLOCK a named pipe would make this wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        int code = errno;
        return cria_fail(err, status_of_errno(code), "%s: %s", path, strerror(code));
    }
    struct stat info;
    cria_status status = CRIA_OK;
    if (fstat(fd, &info) != 0) {
        int code = errno;
        status = cria_fail(err, CRIA_ERR_IO, "%s: %s", path, strerror(code));
    } else if (!S_ISREG(info.st_mode)) {
        status = cria_fail(err, CRIA_ERR_IO, "%s: is not a regular file", path);
    } else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            int code = errno;
            status = cria_fail(err, status_of_errno(code), "%s: cannot be mapped: %s", path, strerror(code));
        } else {
            out->data = data;
            out->size = (size_t)info.st_size;
        }
    }
    close(fd);
    return status;
}

void cria_mapping_close(cria_mapping *mapping) {
    if (mapping->data) munmap((void *)(uintptr_t)mapping->data, mapping->size);
    *mapping = (cria_mapping){0};
}

void cria_mapping_drop(const cria_mapping *mapping, size_t offset, size_t length) {
    if (!mapping->data || !cria_range_inside(offset, length, mapping->size)) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t end = offset + length;
    /* A page shared with what comes before goes too (it is read again from the file if need be), one shared with what
     * comes after stays: pieces dropped in order leave nothing behind, and what is read next is not lost. */
    offset -= offset % page;
    if (end < mapping->size) end -= end % page;
    if (end > offset) madvise((void *)(uintptr_t)(mapping->data + offset), end - offset, MADV_DONTNEED);
}

bool cria_path_is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool cria_path_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

cria_status cria_path_join(const char *folder, const char *name, char *out, size_t size, cria_error *err) {
    size_t folder_length = strlen(folder), name_length = strlen(name);
    bool slash = folder_length > 0 && folder[folder_length - 1] != '/';
    size_t total = folder_length + slash + name_length;
    if (total >= size) {
        return cria_fail(err, CRIA_ERR_ARGUMENT, "path of %zu bytes is over the limit of %zu: %s/%s", total, size - 1,
                         folder, name);
    }
    memcpy(out, folder, folder_length);
    if (slash) out[folder_length] = '/';
    memcpy(out + folder_length + slash, name, name_length + 1);
    return CRIA_OK;
}
