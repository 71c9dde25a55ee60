/* A libnvidia-ml.so.1 without a driver, for the real pynvml. What it shows is said by a control file or, for GPUs that have
 * a UUID and a name and nothing else, by an environment variable.
 *
 * NVML_STUB_CONTROL  path of the control file, see control.py for its lines
 * NVML_STUB_CLOCK    path of a file of 16 bytes, two int64: Unix nanoseconds (0: the real clock), and a number that changes
 *                    when the control file is to be read again
 * NVML_STUB_GPUS     without a control file: "uuid=name;uuid=name", in the order of the PCI bus
 * NVML_STUB_INIT     return code of nvmlInit, 0 if not set
 * NVML_STUB_HANG     nvmlInit never returns
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10 };
enum { DEVICES = 80, CURVES = 18, POINTS = 4096, FAILURES = 64, PROCESSES = 256, RINGS = 5, WORD = 128 };
enum { GLOBAL = -1 };

/* What a curve is of. */
static const char *const CURVE_NAMES[] = {"utilization", "memory_utilization", "encoder", "decoder", "memory_used", "power",
    "temperature", "memory_temperature", "clock_graphics", "clock_sm", "clock_memory", "clock_video", "throttle",
    "ecc_corrected", "ecc_uncorrected", "xid", "energy_reset", "energy_mj"};
enum { UTILIZATION, MEMORY_UTILIZATION, ENCODER, DECODER, MEMORY_USED, POWER, TEMPERATURE, MEMORY_TEMPERATURE, CLOCK, THROTTLE = 12,
    ECC_CORRECTED, ECC_UNCORRECTED, XID, ENERGY_RESET, ENERGY_MJ };
/* The curve behind each ring buffer, by NVML's number of it. */
static const int RING_CURVES[RINGS] = {POWER, UTILIZATION, MEMORY_UTILIZATION, ENCODER, DECODER};
static const char *const RING_NAMES[RINGS] = {"power", "utilization", "memory_utilization", "encoder", "decoder"};

struct curve { int present, ramp, count; double *at, *value; };
struct ring { int length; double period_s; };
struct failure { int device, code; long after; double from_s, until_s; char function[WORD]; };
struct process { int device; unsigned int pid, sm; unsigned long long memory; double from_s, until_s; };
struct device {
    char uuid[WORD], name[WORD], serial[WORD];
    int mig, parent, gi, ci;
    unsigned long long memory_total;
    double energy_update_s;
    struct curve curves[CURVES];
    struct ring rings[RINGS];
    double xid_seen_s;
    int listened;
};

static struct device devices[DEVICES];
static struct failure failures[FAILURES];
static struct process processes[PROCESSES];
static int device_count, failure_count, process_count, init_code, loaded, opened;
static char driver[WORD];
static int64_t origin_ns, generation, boot_us, *clock_page;
static long calls_all;
static struct { char function[WORD]; long calls; } counted[64];

/* A handle is the index of a device plus one, so that it is not NULL. */
typedef void *handle_t;

static int64_t now_ns(void)
{
    if (clock_page != NULL && clock_page[0] != 0)
        return clock_page[0];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static double now_s(void) { return (now_ns() - origin_ns) / 1e9; }

static void copy(char *to, const char *from)
{
    snprintf(to, WORD, "%s", from);
    to[strcspn(to, "\r\n")] = '\0';
}

/* "0=100 10=350": seconds and values. */
static void read_curve(struct curve *curve, char *text, int ramp)
{
    curve->present = 1, curve->ramp = ramp, curve->count = 0;
    free(curve->at), free(curve->value);
    curve->at = calloc(POINTS, sizeof(double)), curve->value = calloc(POINTS, sizeof(double));
    char *rest = NULL;
    for (char *pair = strtok_r(text, " \n", &rest); pair != NULL && curve->count < POINTS; pair = strtok_r(NULL, " \n", &rest)) {
        char *equals = strchr(pair, '=');
        if (equals == NULL)
            continue;
        curve->at[curve->count] = atof(pair), curve->value[curve->count++] = atof(equals + 1);
    }
}

static double value_at(const struct curve *curve, double at)
{
    int last = curve->count - 1;
    while (last > 0 && curve->at[last] > at)
        last--;
    if (!curve->ramp || last + 1 >= curve->count || at <= curve->at[last])
        return curve->value[last];
    double share = (at - curve->at[last]) / (curve->at[last + 1] - curve->at[last]);
    return curve->value[last] + share * (curve->value[last + 1] - curve->value[last]);
}

/* The area below a curve; steps and ramps are exact. */
static double area(const struct curve *curve, double from, double to)
{
    double sum = 0, at = from;
    for (int i = 0; i <= curve->count && at < to; i++) {
        double end = i < curve->count ? curve->at[i] : to;
        end = end > to ? to : end;
        if (end <= at)
            continue;
        double left = value_at(curve, at), right = curve->ramp ? value_at(curve, end) : left;
        sum += (left + right) / 2 * (end - at), at = end;
    }
    return at < to ? sum + value_at(curve, at) * (to - at) : sum;
}

static struct device *add_device(const char *uuid)
{
    struct device *device = &devices[device_count < DEVICES - 1 ? device_count++ : device_count];
    memset(device, 0, sizeof *device);
    copy(device->uuid, uuid);
    device->parent = GLOBAL, device->xid_seen_s = now_s();
    return device;
}

static void read_line(char *line)
{
    struct device *device = device_count ? &devices[device_count - 1] : NULL;
    int index = device_count ? device_count - 1 : GLOBAL;
    char word[WORD] = "", *rest = line;
    if (sscanf(line, "%127s", word) != 1 || word[0] == '#')
        return;
    rest += strspn(rest, " ") + strlen(word);
    rest += strspn(rest, " ");
    if (strcmp(word, "origin_ns") == 0) origin_ns = atoll(rest);
    else if (strcmp(word, "boot_clock") == 0) boot_us = origin_ns / 1000 - (int64_t)(atof(rest) * 1e6);
    else if (strcmp(word, "init") == 0) init_code = atoi(rest);
    else if (strcmp(word, "driver") == 0) copy(driver, rest);
    else if (strcmp(word, "gpu") == 0) add_device(rest);
    else if (strcmp(word, "fail") == 0 && failure_count < FAILURES) {
        struct failure *one = &failures[failure_count++];
        one->device = index, one->after = 0, one->from_s = -INFINITY, one->until_s = INFINITY;
        sscanf(rest, "%127s %d %lf %lf %ld", one->function, &one->code, &one->from_s, &one->until_s, &one->after);
    }
    if (device == NULL)
        return;
    if (strcmp(word, "name") == 0) copy(device->name, rest);
    else if (strcmp(word, "serial") == 0) copy(device->serial, rest);
    else if (strcmp(word, "memory_total") == 0) device->memory_total = strtoull(rest, NULL, 10);
    else if (strcmp(word, "energy_update_s") == 0) device->energy_update_s = atof(rest);
    else if (strcmp(word, "instance") == 0) {
        int parent = index, gi = 0, ci = 0;
        char uuid[WORD];
        while (devices[parent].parent != GLOBAL) parent = devices[parent].parent;
        if (sscanf(rest, "%127s %d %d", uuid, &gi, &ci) >= 1) {
            struct device *instance = add_device(uuid);
            instance->parent = parent, instance->gi = gi, instance->ci = ci;
            devices[parent].mig = 1;
        }
    } else if (strcmp(word, "process") == 0 && process_count < PROCESSES) {
        struct process *one = &processes[process_count++];
        one->device = index, one->from_s = -INFINITY, one->until_s = INFINITY, one->sm = 0;
        sscanf(rest, "%u %llu %u %lf %lf", &one->pid, &one->memory, &one->sm, &one->from_s, &one->until_s);
    } else if (strcmp(word, "ring") == 0) {
        char name[WORD];
        struct ring ring = {0, 0};
        if (sscanf(rest, "%127s %lf %d", name, &ring.period_s, &ring.length) == 3)
            for (int i = 0; i < RINGS; i++)
                if (strcmp(name, RING_NAMES[i]) == 0) device->rings[i] = ring;
    } else if (strcmp(word, "step") == 0 || strcmp(word, "ramp") == 0) {
        char name[WORD];
        if (sscanf(rest, "%127s", name) == 1)
            for (int i = 0; i < CURVES; i++)
                if (strcmp(name, CURVE_NAMES[i]) == 0) read_curve(&device->curves[i], rest + strlen(name), word[0] == 'r');
    }
}

static void read_environment(void)
{
    char text[8192], *rest = NULL;
    snprintf(text, sizeof text, "%s", getenv("NVML_STUB_GPUS") ? getenv("NVML_STUB_GPUS") : "");
    for (char *one = strtok_r(text, ";", &rest); one != NULL; one = strtok_r(NULL, ";", &rest)) {
        char *equals = strchr(one, '=');
        if (equals != NULL) *equals++ = '\0';
        copy(add_device(one)->name, equals ? equals : "");
    }
    const char *code = getenv("NVML_STUB_INIT");
    init_code = code == NULL ? SUCCESS : atoi(code);
}

static void load(void)
{
    const char *path = getenv("NVML_STUB_CONTROL"), *clock = getenv("NVML_STUB_CLOCK");
    if (clock != NULL && clock_page == NULL) {
        int file = open(clock, O_RDONLY | O_CLOEXEC);
        void *page = file < 0 ? MAP_FAILED : mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
        clock_page = page == MAP_FAILED ? NULL : page;
        if (file >= 0) close(file);
    }
    if (loaded && (clock_page == NULL || clock_page[1] == generation))
        return;
    generation = clock_page != NULL ? clock_page[1] : 0;
    double seen[DEVICES];
    int before = loaded ? device_count : 0, listened[DEVICES];
    for (int i = 0; i < before; i++) seen[i] = devices[i].xid_seen_s, listened[i] = devices[i].listened;
    device_count = failure_count = process_count = init_code = 0, boot_us = 0;
    loaded = 1;
    copy(driver, "550.163.01");
    FILE *file = path != NULL ? fopen(path, "re") : NULL;
    if (file == NULL) {
        read_environment();
        return;
    }
    static char line[1 << 17];
    while (fgets(line, sizeof line, file) != NULL) read_line(line);
    fclose(file);
    for (int i = 0; i < before && i < device_count; i++) devices[i].xid_seen_s = seen[i], devices[i].listened = listened[i];
}

/* How often a function was called, for failures that begin after some calls. */
static long count_call(const char *function)
{
    calls_all++;
    for (int i = 0; i < 64; i++) {
        if (counted[i].function[0] == '\0') copy(counted[i].function, function);
        if (strcmp(counted[i].function, function) == 0) return ++counted[i].calls;
    }
    return 0;
}

/* The code that a function is to fail with; of a device, a failure of `*` is that of all functions. */
static int begin(const char *function, int device)
{
    load();
    if (!opened)
        return UNINITIALIZED;
    long calls = failure_count ? count_call(function) : 0;
    double at = failure_count ? now_s() : 0;
    for (int i = 0; i < failure_count; i++) {
        const struct failure *one = &failures[i];
        int is_all = strcmp(one->function, "*") == 0;
        if ((one->device != GLOBAL && one->device != device) || (!is_all && strcmp(one->function, function) != 0)) continue;
        if (at >= one->from_s && at < one->until_s && (is_all ? calls_all : calls) > one->after) return one->code;
    }
    return SUCCESS;
}

#define BEGIN(handle)                                                    \
    int at = (int)(size_t)(handle) - 1, code = begin(__func__, at);      \
    if (code != SUCCESS) return code;                                    \
    if (at < 0 || at >= device_count) return INVALID_ARGUMENT;           \
    struct device *device = &devices[at];                                \
    (void)device

#define CURVE(which)                                                     \
    if (!device->curves[which].present) return NOT_SUPPORTED;            \
    double value = value_at(&device->curves[which], now_s())

static int text_out(const char *text, char *to, unsigned int length)
{
    if (strlen(text) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

/* -- the library ---------------------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    while (getenv("NVML_STUB_HANG") != NULL) pause();
    load();
    if (init_code != SUCCESS) return init_code;
    opened++;
    int code = begin("nvmlInitWithFlags", GLOBAL);
    if (code != SUCCESS) opened--;
    return code;
}

int nvmlShutdown(void)
{
    if (!opened) return UNINITIALIZED;
    opened--;
    return SUCCESS;
}

const char *nvmlErrorString(int code)
{
    (void)code;
    return "stub";
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    int code = begin(__func__, GLOBAL);
    return code != SUCCESS ? code : text_out(driver, version, length);
}

/* The device with this index among those of a parent. */
static int nth(int parent, unsigned int index)
{
    for (int i = 0; i < device_count; i++)
        if (devices[i].parent == parent && index-- == 0) return i;
    return -1;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    int code = begin(__func__, GLOBAL);
    for (*count = 0; code == SUCCESS && nth(GLOBAL, *count) >= 0; ++*count) ;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, handle_t *handle)
{
    load();
    int found = nth(GLOBAL, index), code = begin(__func__, found);
    *handle = (handle_t)(size_t)(found + 1);
    return code != SUCCESS ? code : found < 0 ? INVALID_ARGUMENT : SUCCESS;
}

int nvmlDeviceGetUUID(handle_t handle, char *uuid, unsigned int length) { BEGIN(handle); return text_out(device->uuid, uuid, length); }
int nvmlDeviceGetName(handle_t handle, char *name, unsigned int length) { BEGIN(handle); return text_out(device->name, name, length); }

int nvmlDeviceGetSerial(handle_t handle, char *serial, unsigned int length)
{
    BEGIN(handle);
    return device->serial[0] ? text_out(device->serial, serial, length) : NOT_SUPPORTED;
}

/* -- instances ------------------------------------------------------------------------------------------------------ */

int nvmlDeviceGetMigMode(handle_t handle, unsigned int *current, unsigned int *pending)
{
    BEGIN(handle);
    *current = *pending = (unsigned int)device->mig;
    return device->mig ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(handle_t handle, unsigned int *count)
{
    BEGIN(handle);
    *count = device->mig ? 7 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle_t handle, unsigned int index, handle_t *instance)
{
    BEGIN(handle);
    int found = nth(at, index);
    *instance = (handle_t)(size_t)(found + 1);
    return found < 0 ? NOT_FOUND : SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(handle_t handle, unsigned int *id) { BEGIN(handle); *id = (unsigned int)device->gi; return SUCCESS; }
int nvmlDeviceGetComputeInstanceId(handle_t handle, unsigned int *id) { BEGIN(handle); *id = (unsigned int)device->ci; return SUCCESS; }

/* -- now ------------------------------------------------------------------------------------------------------------ */

int nvmlDeviceGetUtilizationRates(handle_t handle, unsigned int *rates)
{
    BEGIN(handle);
    if (device->mig) return NOT_SUPPORTED;
    CURVE(UTILIZATION);
    rates[0] = (unsigned int)value;
    rates[1] = device->curves[MEMORY_UTILIZATION].present ? (unsigned int)value_at(&device->curves[MEMORY_UTILIZATION], now_s()) : 0;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(handle_t handle, unsigned long long *memory)
{
    BEGIN(handle);
    if (device->memory_total == 0) return NOT_SUPPORTED;
    const struct curve *used = &device->curves[MEMORY_USED];
    memory[0] = device->memory_total;
    memory[2] = used->present ? (unsigned long long)value_at(used, now_s()) : 0;
    memory[1] = memory[0] - memory[2];
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(handle_t handle, unsigned int *milliwatts)
{
    BEGIN(handle);
    CURVE(POWER);
    *milliwatts = (unsigned int)(value * 1000);
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(handle_t handle, unsigned long long *millijoules)
{
    BEGIN(handle);
    double until = now_s(), from = 0;
    if (device->curves[ENERGY_MJ].present) {
        CURVE(ENERGY_MJ);
        *millijoules = (unsigned long long)value;
        return SUCCESS;
    }
    if (!device->curves[POWER].present) return NOT_SUPPORTED;
    if (device->energy_update_s > 0) until = floor(until / device->energy_update_s + 1e-9) * device->energy_update_s;
    for (int i = 0; i < device->curves[ENERGY_RESET].count; i++)
        if (device->curves[ENERGY_RESET].at[i] <= until) from = device->curves[ENERGY_RESET].at[i];
    *millijoules = (unsigned long long)(area(&device->curves[POWER], from, until) * 1000 + 0.5);
    return SUCCESS;
}

int nvmlDeviceGetTemperature(handle_t handle, unsigned int sensor, unsigned int *celsius)
{
    BEGIN(handle);
    CURVE(TEMPERATURE);
    *celsius = (unsigned int)value;
    return sensor == 0 ? SUCCESS : INVALID_ARGUMENT;
}

struct temperature { unsigned int version, sensor; int celsius; };

int nvmlDeviceGetTemperatureV(handle_t handle, struct temperature *temperature)
{
    BEGIN(handle);
    CURVE(TEMPERATURE);
    temperature->celsius = (int)value;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(handle_t handle, unsigned int type, unsigned int *megahertz)
{
    BEGIN(handle);
    if (type > 3) return INVALID_ARGUMENT;
    CURVE(CLOCK + type);
    *megahertz = (unsigned int)value;
    return SUCCESS;
}

static int throttle(struct device *device, unsigned long long *reasons)
{
    CURVE(THROTTLE);
    *reasons = (unsigned long long)value;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(handle_t handle, unsigned long long *reasons) { BEGIN(handle); return throttle(device, reasons); }
int nvmlDeviceGetCurrentClocksThrottleReasons(handle_t handle, unsigned long long *reasons) { BEGIN(handle); return throttle(device, reasons); }

static int coder(struct device *device, int which, unsigned int *percent, unsigned int *period_us)
{
    CURVE(which);
    *percent = (unsigned int)value, *period_us = 167000;
    return SUCCESS;
}

int nvmlDeviceGetEncoderUtilization(handle_t handle, unsigned int *percent, unsigned int *us) { BEGIN(handle); return coder(device, ENCODER, percent, us); }
int nvmlDeviceGetDecoderUtilization(handle_t handle, unsigned int *percent, unsigned int *us) { BEGIN(handle); return coder(device, DECODER, percent, us); }

int nvmlDeviceGetTotalEccErrors(handle_t handle, unsigned int kind, unsigned int counter, unsigned long long *count)
{
    (void)counter;
    BEGIN(handle);
    CURVE(kind == 0 ? ECC_CORRECTED : ECC_UNCORRECTED);
    *count = (unsigned long long)value;
    return SUCCESS;
}

struct field { uint32_t id, scope; int64_t timestamp, latency_us; unsigned int type, code; union { double d; unsigned int u; uint64_t ull; } value; };

int nvmlDeviceGetFieldValues(handle_t handle, int count, struct field *fields)
{
    BEGIN(handle);
    for (int i = 0; i < count; i++) {
        const struct curve *curve = &device->curves[MEMORY_TEMPERATURE];
        fields[i].code = fields[i].id == 82 && curve->present ? SUCCESS : NOT_SUPPORTED;
        fields[i].type = 1, fields[i].timestamp = now_ns() / 1000;
        if (fields[i].code == SUCCESS) fields[i].value.u = (unsigned int)value_at(curve, now_s());
    }
    return SUCCESS;
}

/* -- since then ----------------------------------------------------------------------------------------------------- */

struct sample { unsigned long long time_us; union { double d; unsigned int u; unsigned long long ull; } value; };

/* The driver samples on a grid of its own; a value describes the period before, so it is the curve's mean there. */
int nvmlDeviceGetSamples(handle_t handle, int type, unsigned long long since_us, int *value_type, unsigned int *count, struct sample *samples)
{
    BEGIN(handle);
    if (type < 0 || type >= RINGS || device->rings[type].period_s == 0 || device->mig) return NOT_SUPPORTED;
    const struct ring *ring = &device->rings[type];
    const struct curve *curve = &device->curves[RING_CURVES[type]];
    if (!curve->present) return NOT_SUPPORTED;
    *value_type = 1;
    if (ring->length == 0) return NOT_FOUND;
    int64_t period_ns = (int64_t)(ring->period_s * 1e9), last = (now_ns() - origin_ns) / period_ns, first = last - ring->length + 1;
    unsigned int found = 0;
    for (int64_t tick = first < 1 ? 1 : first; tick <= last; tick++) {
        unsigned long long time_us = (unsigned long long)((origin_ns + tick * period_ns) / 1000 - boot_us);
        if (time_us <= since_us) continue;
        if (samples != NULL && found < *count) {
            double at_s = tick * ring->period_s, mean = area(curve, at_s - ring->period_s, at_s) / ring->period_s;
            samples[found].time_us = time_us;
            samples[found].value.u = (unsigned int)(mean * (type == 0 ? 1000 : 1) + 0.5);
        }
        found++;
    }
    if (samples == NULL) *count = (unsigned int)ring->length;
    else *count = found < *count ? found : *count;
    return found ? SUCCESS : NOT_FOUND;
}

struct process_info { unsigned int pid; unsigned long long memory; unsigned int gi, ci; };

static int runs(const struct process *one, int device) { return one->device == device && now_s() >= one->from_s && now_s() < one->until_s; }

int nvmlDeviceGetComputeRunningProcesses_v3(handle_t handle, unsigned int *count, struct process_info *infos)
{
    BEGIN(handle);
    unsigned int room = *count, found = 0;
    for (int i = 0; i < process_count; i++) {
        if (!runs(&processes[i], at)) continue;
        if (infos != NULL && found < room)
            infos[found] = (struct process_info){processes[i].pid, processes[i].memory, (unsigned)device->gi, (unsigned)device->ci};
        found++;
    }
    *count = found;
    return found > room || (infos == NULL && found) ? INSUFFICIENT_SIZE : SUCCESS;
}

struct process_sample { unsigned int pid; unsigned long long time_us; unsigned int sm, memory, encoder, decoder; };

/* One sample a second for each process that was busy. */
int nvmlDeviceGetProcessUtilization(handle_t handle, struct process_sample *samples, unsigned int *count, unsigned long long since_us)
{
    BEGIN(handle);
    unsigned long long time_us = (unsigned long long)(now_ns() / 1000000000 * 1000000 - boot_us);
    unsigned int room = *count, found = 0;
    for (int i = 0; i < process_count; i++) {
        if (!runs(&processes[i], at) || processes[i].sm == 0 || time_us <= since_us) continue;
        if (samples != NULL && found < room) samples[found] = (struct process_sample){processes[i].pid, time_us, processes[i].sm, 0, 0, 0};
        found++;
    }
    *count = found;
    if (found == 0) return NOT_FOUND;
    return samples == NULL || found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

/* -- events --------------------------------------------------------------------------------------------------------- */

struct event { handle_t device; unsigned long long type, data; unsigned int gi, ci; };

int nvmlEventSetCreate(handle_t *set) { *set = (handle_t)1; return begin(__func__, GLOBAL); }
int nvmlEventSetFree(handle_t set) { (void)set; return SUCCESS; }

int nvmlDeviceRegisterEvents(handle_t handle, unsigned long long types, handle_t set)
{
    (void)types, (void)set;
    BEGIN(handle);
    device->listened = 1;
    return SUCCESS;
}

int nvmlEventSetWait_v2(handle_t set, struct event *event, unsigned int timeout_ms)
{
    (void)set, (void)timeout_ms;
    int code = begin(__func__, GLOBAL);
    if (code != SUCCESS) return code;
    for (int i = 0; i < device_count; i++) {
        const struct curve *xids = &devices[i].curves[XID];
        for (int j = 0; devices[i].listened && j < xids->count; j++) {
            if (xids->at[j] <= devices[i].xid_seen_s || xids->at[j] > now_s()) continue;
            devices[i].xid_seen_s = xids->at[j];
            *event = (struct event){(handle_t)(size_t)(i + 1), 8, (unsigned long long)xids->value[j], 0, 0};
            return SUCCESS;
        }
    }
    return TIMEOUT;
}
