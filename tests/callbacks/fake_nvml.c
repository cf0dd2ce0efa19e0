/* A stand-in for libnvidia-ml.so.1. Its cards are lines of the file that FAKE_NVML_STATE names:
 *   uuid millijoules milliwatts limit_mW least_mW greatest_mW celsius flags
 * millijoules below 0: derived from milliwatts and the clock, renewed every 20 ms. So it outlives the process.
 * The MIG device of a card is called MIG-<what follows GPU- in its uuid>.
 * Compiled with -DOLD it is a driver without energy counters, enforced limits and MIG.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       GPU_IS_LOST = 15 };
enum { NO_ENERGY = 1, NO_POWER = 2, NO_RIGHTS = 4, STUBBORN = 8, DIVIDED = 16, LOST = 32 };
enum { MIG = 100, CARDS = 8, PERIOD_MS = 20 };

typedef struct { char uuid[64]; long long energy; unsigned power, limit, least, greatest, celsius, flags; } Card;
typedef void *Device; /* 1 + number of the card; of its MIG device: MIG more */

static int opened = 0;

static int load(Card *cards) {
    FILE *file = fopen(getenv("FAKE_NVML_STATE"), "r");
    int n = 0;
    if (!file) return 0;
    while (n < CARDS && fscanf(file, "%63s %lld %u %u %u %u %u %u", cards[n].uuid, &cards[n].energy, &cards[n].power,
                               &cards[n].limit, &cards[n].least, &cards[n].greatest, &cards[n].celsius,
                               &cards[n].flags) == 8) n++;
    fclose(file);
    return n;
}

static void save(const Card *cards, int n) {
    FILE *file = fopen(getenv("FAKE_NVML_STATE"), "w");
    for (int i = 0; i < n; i++)
        fprintf(file, "%s %lld %u %u %u %u %u %u\n", cards[i].uuid, cards[i].energy, cards[i].power, cards[i].limit,
                cards[i].least, cards[i].greatest, cards[i].celsius, cards[i].flags);
    fclose(file);
}

static int find(Device device, Card *card) {
    Card cards[CARDS];
    int n = load(cards), i = (int)(size_t)device - 1;
    if (!opened) return UNINITIALIZED;
    if (i >= MIG) return NOT_SUPPORTED; /* a part has no meters */
    if (i < 0 || i >= n) return INVALID_ARGUMENT;
    *card = cards[i];
    return card->flags & LOST ? GPU_IS_LOST : SUCCESS;
}

#define ANSWER(flag, value) \
    Card card; \
    int error = find(device, &card); \
    if (error) return error; \
    if (card.flags & (flag)) return NOT_SUPPORTED; \
    *out = (value); \
    return SUCCESS;

int nvmlInitWithFlags(unsigned flags) { opened++; return SUCCESS; }
int nvmlShutdown(void) { return opened-- > 0 ? SUCCESS : UNINITIALIZED; }
int fake_opened(void) { return opened; }

const char *nvmlErrorString(int error) { return error == 4711 ? "a new error" : "an error"; }

int nvmlDeviceGetCount_v2(unsigned *out) {
    Card cards[CARDS];
    *out = load(cards);
    return opened ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
    Card cards[CARDS];
    if (index >= (unsigned)load(cards)) return INVALID_ARGUMENT;
    *out = (Device)(size_t)(index + 1);
    return cards[index].flags & LOST ? GPU_IS_LOST : SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    Card cards[CARDS];
    int n = load(cards);
    for (int i = 0; i < n; i++) {
        if (!strcmp(uuid, cards[i].uuid)) return *out = (Device)(size_t)(i + 1), SUCCESS;
        if (!strncmp(uuid, "MIG-", 4) && !strcmp(uuid + 4, cards[i].uuid + 4))
            return *out = (Device)(size_t)(i + 1 + MIG), SUCCESS;
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Device device, char *out, unsigned length) {
    Card card;
    int error = find(device, &card);
    if (!error) snprintf(out, length, "%s", card.uuid);
    return error;
}

int nvmlDeviceGetName(Device device, char *out, unsigned length) {
    snprintf(out, length, "Fake %d", (int)(size_t)device - 1);
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(Device device, unsigned *out) { ANSWER(NO_POWER, card.power) }
int nvmlDeviceGetPowerManagementLimit(Device device, unsigned *out) { ANSWER(NO_POWER, card.limit) }
int nvmlDeviceGetPowerManagementDefaultLimit(Device device, unsigned *out) { ANSWER(NO_POWER, card.greatest) }
int nvmlDeviceGetTemperature(Device device, int sensor, unsigned *out) { ANSWER(sensor ? ~0u : 0, card.celsius) }

int nvmlDeviceGetPowerManagementLimitConstraints(Device device, unsigned *least, unsigned *out) {
    Card cards[CARDS];
    load(cards);
    *least = cards[(size_t)device - 1].least;
    ANSWER(NO_POWER, card.greatest)
}

int nvmlDeviceSetPowerManagementLimit(Device device, unsigned limit) {
    Card card, cards[CARDS];
    int error = find(device, &card), n = load(cards);
    if (error) return error;
    if (card.flags & NO_RIGHTS) return NO_PERMISSION;
    if (limit < card.least || limit > card.greatest) return INVALID_ARGUMENT;
    if (card.flags & STUBBORN) return SUCCESS; /* and does nothing */
    cards[(size_t)device - 1].limit = limit;
    save(cards, n);
    return SUCCESS;
}

/* pynvml 13 throws its answer away: who calls it learns nothing */
int nvmlDeviceSetPowerManagementLimit_v2(Device device, void *value) { return NO_PERMISSION; }

#ifndef OLD
int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *out) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long ticks = (now.tv_sec * 1000LL + now.tv_nsec / 1000000) / PERIOD_MS;
    ANSWER(NO_ENERGY, (unsigned long long)(card.energy < 0 ? ticks * PERIOD_MS * card.power / 1000 : card.energy))
}

int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned *out) { ANSWER(NO_POWER, card.limit) }

int nvmlDeviceGetMigMode(Device device, unsigned *out, unsigned *pending) {
    *pending = 0;
    ANSWER(0, !!(card.flags & DIVIDED))
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device device, Device *out) {
    *out = (Device)((size_t)device - MIG);
    return (size_t)device > MIG ? SUCCESS : INVALID_ARGUMENT;
}
#endif
