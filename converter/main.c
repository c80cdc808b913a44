/* main.c: the command line: finds the command, runs it, prints its error, turns its status into an exit code.
 *
 *   llmq COMMAND [options]     exit 0 ok, 1 failed, 2 usage, 3 verification mismatch, 128 + signal after Ctrl-C
 *
 * Why this way: the only file that prints errors, exits, or keeps a mutable global (the stop flag, which a signal handler must reach).
 * Corner cases: stdout that cannot be written (full disk, closed pipe) turns success into failure; SIGINT, SIGTERM and SIGHUP stop the run cleanly;
 * SIGPIPE and SIGXFSZ become write errors; a standard stream that is closed is opened on /dev/null the wrong way round, so that no model file gets
 * its number and writing to it still fails; control characters of an argument never break a sentence into lines.
 * Reference: design.md 5. Worked number: an unknown command is exit code 2.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "converter/app.h"
#include "converter/version.h"

struct command {
    const char *name;
    uint32_t bit;
    enum status (*run)(struct app *app, struct err *err);
    const char *usage;
    const char *summary;
};

static const struct command commands[] = {
    { "convert", CMD_CONVERT, cmd_convert, "--in MODEL --format FORMAT [--out FILE] [options]", "quantise a model into a .llmq container" },
    { "plan", CMD_PLAN, cmd_plan, "--in MODEL --format FORMAT [options]", "say what convert would do: every tensor, every byte, RAM and disk" },
    { "smooth", CMD_SMOOTH, cmd_smooth, "--in MODEL --smooth FILE --out DIR|FILE [--smooth-recipe-out R.json] | --inverse R.json",
      "scale channels into the layers before, without quantising" },
    { "sweep", CMD_SWEEP, cmd_sweep, "--in MODEL --formats A,B [--group-sizes N,M] [--csv FILE] [options]",
      "measure a model in many formats and group sizes in one read" },
    { "inspect", CMD_INSPECT, cmd_inspect, "MODEL [--tensors] [--scan] [--json]", "show what a model or container holds" },
    { "verify", CMD_VERIFY, cmd_verify, "FILE.llmq", "check every byte of a container against its checksums" },
    { "dequantize", CMD_DEQUANTIZE, cmd_dequantize, "--in FILE.llmq --out FILE.safetensors|DIR [--dtype TYPE]", "decode a container to safetensors" },
    { "compare", CMD_COMPARE, cmd_compare, "--in MODEL --against MODEL [--json]", "error of every tensor between two models, worst first" },
    { "extract", CMD_EXTRACT, cmd_extract, "FILE.llmq NAME... [--out PATH] [--raw]", "take single tensors or stored files out of a container" },
    { "formats", CMD_FORMATS, cmd_formats, "[--json]", "list the number formats" },
    { "bench", CMD_BENCH, cmd_bench, "[--format FORMAT] [--json]", "measure the kernels, GB/s of BF16 input" },
    { "calibrate", CMD_CALIBRATE, cmd_calibrate, "--in MODEL --text FILE|--tokens FILE|--self NxL --out STATS [options]",
      "run a model on a text and keep activation statistics" },
    { "eval", CMD_EVAL, cmd_eval, "--in MODEL [--against MODEL] --text FILE|--tokens FILE [--seq N] [--json]",
      "perplexity of a model, and KL divergence from another" },
    { "stats", CMD_STATS, cmd_stats, "show|merge|convert FILE... [--out OUT]",
      "show, merge and convert activation statistics (imatrix, act_scales)" },
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    stop_signal = number;
}

static void install_signals(void)
{
    const int stopping[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = on_signal };
    for (size_t i = 0; i < sizeof stopping / sizeof stopping[0]; i++) sigaction(stopping[i], &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
}

/* Numbers 0 to 2 are taken from here on: 0 for writing only, 1 and 2 for reading only, where they were closed. */
static void hold_standard_streams(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) (void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

/* One line, whatever stands in the text. */
static void print_sentence(const char *command, const char *text)
{
    fprintf(stderr, "llmq %s: ", command);
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < 32 || *p == 127) fprintf(stderr, "\\x%02x", (unsigned)(unsigned char)*p);
        else fputc(*p, stderr);
    }
    fputc('\n', stderr);
}

static void print_help(FILE *out)
{
    fprintf(out, "llmq %s: quantise trained LLM weights for edge devices\n\nusage: llmq COMMAND [options]\n\n", LLMQ_VERSION_TEXT);
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-11s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\n  llmq COMMAND --help   the options of a command\n  llmq --version        the version\n\n"
                 "Exit codes: 0 ok, 1 failed, 2 usage, 3 verification mismatch.\n"
                 "Example: llmq convert --in model.safetensors --format mxfp4\n");
}

static void print_command_help(const struct command *command)
{
    printf("llmq %s: %s\n\nusage: llmq %s %s\n\noptions:\n", command->name, command->summary, command->name, command->usage);
    settings_print_help(stdout, command->bit);
}

static int exit_code(enum status status)
{
    if (status == OK) return 0;
    if (status == ERR_USAGE) return 2;
    if (status == ERR_MISMATCH) return 3;
    if (status == ERR_CANCELLED && stop_signal) return 128 + (int)stop_signal;
    return 1;
}

/* Everything printed so far must have arrived, or the run has failed. */
static int finish(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    fprintf(stderr, "llmq: cannot write to standard output: %s\n", strerror(errno));
    return code ? code : 1;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct err err = { OK, "" };
    const char *wanted = getenv("LLMQ_KERNELS");
    struct app app = { .io = &io_system, .kernels = kernels_select(wanted), .stop = &stop_signal, .config_override = getenv("LLMQ_CONFIG") };
    bool help;
    enum status status = settings_parse(&app.settings, command->bit, argc, argv, &help, &err);
    if (status == OK && help) print_command_help(command);
    else if (status == OK) {
        if (wanted && *wanted && strcmp(wanted, app.kernels->name) != 0)
            app_note(&app, "LLMQ_KERNELS=%s: not on this processor, using %s", wanted, app.kernels->name);
        status = command->run(&app, &err);
    }
    settings_free(&app.settings);
    if (status) print_sentence(command->name, err.text);
    if (status == ERR_USAGE) fprintf(stderr, "usage: llmq %s %s (llmq %s --help says more)\n", command->name, command->usage, command->name);
    return finish(exit_code(status));
}

int main(int argc, char **argv)
{
    hold_standard_streams();
    install_signals();
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return finish(0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("llmq %s\n", LLMQ_VERSION_TEXT);
        return finish(0);
    }
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return run_command(&commands[i], argc - 2, argv + 2);
    fprintf(stderr, "llmq: unknown command '%s' (llmq --help lists them)\n", argv[1]);
    return 2;
}
