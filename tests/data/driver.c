/* A driver on nothing but the generated header. The accelerator's registers are at the other end of
 * standard input and output: a line "r OFFSET" is answered with a number, "w OFFSET VALUE" is not.
 * Other lines are what the driver found, for the test that reads them. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t read_register(uint32_t offset)
{
    uint32_t value;
    printf("r %" PRIu32 "\n", offset);
    fflush(stdout);
    if (scanf("%" SCNu32, &value) != 1)
        exit(3);
    return value;
}

#define TERNTABLE_READ32(base, offset) read_register((uint32_t)((base) + (offset)))
#define TERNTABLE_WRITE32(base, offset, value) \
    ((void)printf("w %" PRIu32 " %" PRIu32 "\n", (uint32_t)((base) + (offset)), (value)))
#include "terntable.h"

enum { TOKENS = 6, BASE = 0 };

static uint32_t finished(void)
{
    uint32_t status;
    do
        status = terntable_status(BASE);
    while (!(status & (TERNTABLE_STATUS_DONE | TERNTABLE_STATUS_ERROR)));
    return status;
}

static void call(const char *name)
{
    terntable_start(BASE, TOKENS, 0, TERNTABLE_CONFIG_CHUNK);
    uint32_t status = finished();
    printf("= %s status %" PRIu32 " argmax %" PRIu32 "\n", name, status,
           TERNTABLE_READ32(BASE, TERNTABLE_ARGMAX));
}

static void report(const char *name)
{
    printf("= %s: %s, %s at %" PRIu32 "\n", name,
           terntable_error_text(TERNTABLE_READ32(BASE, TERNTABLE_ERROR_CODE)),
           terntable_unit_name(TERNTABLE_READ32(BASE, TERNTABLE_ERROR_UNIT)),
           TERNTABLE_READ32(BASE, TERNTABLE_ERROR_ADDRESS));
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    uint64_t address = strtoull(argv[1], NULL, 0);
    uint32_t bytes = (uint32_t)strtoul(argv[2], NULL, 0);
    uint32_t write_base = (uint32_t)strtoul(argv[3], NULL, 0);
    uint32_t program = (uint32_t)strtoul(argv[4], NULL, 0);

    printf("= identify %d\n", terntable_identify(BASE));

    terntable_place(BASE, address, bytes, write_base, program, 100000);
    call("first");
    terntable_clear(BASE);
    printf("= cleared %" PRIu32 "\n", terntable_status(BASE));

    /* A doorbell during a call is refused, and the call goes on. */
    terntable_start(BASE, TOKENS, 0, TERNTABLE_CONFIG_CHUNK);
    terntable_start(BASE, 1, 0, 1);
    report("busy");
    printf("= went on %" PRIu32 "\n", finished());
    terntable_clear(BASE);

    /* The program is outside of the fence. */
    terntable_place(BASE, address, program, write_base, program, 100000);
    call("fenced");
    report("fence");
    terntable_clear(BASE);
    printf("= kept %" PRIu32 "\n", terntable_status(BASE));
    terntable_reset(BASE);
    printf("= reset %" PRIu32 "\n", terntable_status(BASE));

    terntable_place(BASE, address, bytes, write_base, program, 100000);
    call("again");

    uint32_t command[TERNTABLE_COMMAND_WORDS] = {0};
    terntable_put(command, TERNTABLE_FIELD_COMMAND_OP, TERNTABLE_OP_LOAD);
    terntable_put(command, TERNTABLE_FIELD_COMMAND_WAIT, 1u << TERNTABLE_UNIT_VECTOR);
    terntable_put(command, TERNTABLE_FIELD_LOAD_DEST, TERNTABLE_DEST_GAIN);
    terntable_put(command, TERNTABLE_FIELD_LOAD_ADDRESS, 0x12345678);
    terntable_put(command, TERNTABLE_FIELD_LOAD_ROW_BYTES, 0xffffffff);
    terntable_put(command, TERNTABLE_FIELD_LOAD_EW, 0xffff);
    terntable_put(command, TERNTABLE_FIELD_LOAD_EW, 77);
    terntable_put(command, TERNTABLE_FIELD_LOAD_COUNT, 3);
    printf("= command");
    for (int i = 0; i < (int)TERNTABLE_COMMAND_WORDS; i++)
        printf(" %" PRIu32, command[i]);
    printf("\n");
    return 0;
}
