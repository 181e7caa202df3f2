// What codec.cpp gives the waveform writer in place of lz4.h and zlib.h.
#pragma once

typedef unsigned char Bytef;
typedef unsigned long uLong;
typedef unsigned long uLongf;

enum { Z_OK = 0, Z_BUF_ERROR = -5 };

int LZ4_compressBound(int size);
int LZ4_compress_default(const char* from, char* to, int size, int capacity);
uLong compressBound(uLong size);
int compress2(Bytef* to, uLongf* capacity, const Bytef* from, uLong size, int level);
