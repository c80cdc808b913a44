/* version.h: the version of the program, from the build.
 *
 * Why this way: one place (CMakeLists.txt) states it.
 * Corner cases: builds that bypass CMake say "unknown".
 * Reference: semantic versioning. Example: "0.1.0".
 */
#ifndef LLMQ_CONVERTER_VERSION_H
#define LLMQ_CONVERTER_VERSION_H

#ifdef LLMQ_VERSION
#define LLMQ_VERSION_TEXT LLMQ_VERSION
#else
#define LLMQ_VERSION_TEXT "unknown"
#endif

#endif
