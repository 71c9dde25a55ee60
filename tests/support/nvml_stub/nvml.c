/* A libnvidia-ml.so.1 without a driver: enough for the real pynvml to count GPUs and read their UUIDs and names.
 *
 * NVML_STUB_GPUS   "uuid=name;uuid=name", in the order of the PCI bus
 * NVML_STUB_INIT   return code of nvmlInit, 0 if not set
 * NVML_STUB_HANG   nvmlInit never returns
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

/* A handle is the index of a GPU plus one, so that it is not NULL. */
typedef void *handle_t;

static int field(unsigned int index, int name, char *to, unsigned int length)
{
    const char *at = getenv("NVML_STUB_GPUS");
    for (; at != NULL && index > 0; index--) {
        at = strchr(at, ';');
        at = at == NULL ? NULL : at + 1;
    }
    if (at == NULL || *at == '\0')
        return INVALID_ARGUMENT;
    size_t size = strcspn(at, "=;");
    if (name) {
        at += size + (at[size] == '=');
        size = strcspn(at, ";");
    }
    if (size + 1 > length)
        return INSUFFICIENT_SIZE;
    memcpy(to, at, size);
    to[size] = '\0';
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    const char *code = getenv("NVML_STUB_INIT");
    while (getenv("NVML_STUB_HANG") != NULL)
        pause();
    return code == NULL ? SUCCESS : atoi(code);
}

int nvmlShutdown(void)
{
    return SUCCESS;
}

const char *nvmlErrorString(int code)
{
    (void)code;
    return "stub";
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    char text[128];
    for (*count = 0; field(*count, 0, text, sizeof text) == SUCCESS; ++*count)
        ;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, handle_t *handle)
{
    char text[128];
    *handle = (handle_t)(size_t)(index + 1);
    return field(index, 0, text, sizeof text);
}

int nvmlDeviceGetUUID(handle_t handle, char *uuid, unsigned int length)
{
    return field((unsigned int)(size_t)handle - 1, 0, uuid, length);
}

int nvmlDeviceGetName(handle_t handle, char *name, unsigned int length)
{
    return field((unsigned int)(size_t)handle - 1, 1, name, length);
}

int nvmlDeviceGetMigMode(handle_t handle, unsigned int *current, unsigned int *pending)
{
    (void)handle;
    *current = *pending = 0;
    return NOT_SUPPORTED;
}
