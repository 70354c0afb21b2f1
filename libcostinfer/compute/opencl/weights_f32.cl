/* weights_f32.cl - a weight is a float. */
#define WEIGHT       float
#define LOAD1(i, p)  (p)[i]
#define LOAD4        vload4
#define LOAD16       vload16
#define SCALED(y, c) (y)
#define TYPED(name)  name##_f32
