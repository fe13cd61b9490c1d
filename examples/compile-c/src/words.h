/* The parts of the small program that this example builds. */
#ifndef WORDS_H
#define WORDS_H
#include <stddef.h>

size_t count_words(const char *text);
size_t count_letters(const char *text);
size_t longest_word(const char *text);

#endif
