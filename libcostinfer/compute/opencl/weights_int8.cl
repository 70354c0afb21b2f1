/* weights_int8.cl - a weight is a char times its output's scale, which the finished sum is multiplied by. */
#define WEIGHT       char
#define LOAD1(i, p)  (float)(p)[i]
#define LOAD4(i, p)  convert_float4(vload4(i, p))
#define LOAD16(i, p) convert_float16(vload16(i, p))
#define SCALED(y, c) ((y) * scales[c])
#define TYPED(name)  name##_int8
