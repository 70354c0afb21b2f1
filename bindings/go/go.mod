module costinfer

go 1.19
