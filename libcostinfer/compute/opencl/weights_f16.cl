/* weights_f16.cl - a weight is a half; rows are aligned, so that vectors are read as such. */
#define WEIGHT       half
#define LOAD1        vload_half
#define LOAD4        vloada_half4
#define LOAD16       vloada_half16
#define SCALED(y, c) (y)
#define TYPED(name)  name##_f16
