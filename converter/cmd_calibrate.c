#include "converter/app.h"
enum status cmd_calibrate(struct app *app, struct err *err)
{
    (void)app;
    return err_set(err, ERR_UNSUPPORTED, "not yet");
}
