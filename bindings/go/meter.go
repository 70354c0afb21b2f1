package costinfer

/*
#include <costinfer/costinfer.h>
#include <stdlib.h>
*/
import "C"

import (
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// Meter is a timeline of one device, for a program that runs models by itself:
//
//	meter, err := costinfer.NewMeter("lathe", "3.60")
//	...
//	bill, err := meter.OpenBill("turning")
//	meter.Busy()
//	// … the work …
//	meter.Charge(costinfer.Share{Bill: bill, DecodeWeight: 1})
//	meter.Idle()
//	report := bill.Close("stop")
//
// Many goroutines may use it concurrently.
type Meter struct {
	mu sync.Mutex // only one thread at a time may advance time
	c  *C.struct_cinf_meter
}

// NewMeter starts a timeline in the idle state.  device is its label; if the price is "", amounts are zero.
func NewMeter(device, dollarsPerHour string) (*Meter, error) {
	var t texts
	defer func() { t.free() }()
	options := (*C.struct_cinf_meter_options)(C.calloc(1, C.sizeof_struct_cinf_meter_options))
	defer C.free(unsafe.Pointer(options))
	options.struct_size = C.sizeof_struct_cinf_meter_options
	options.device, options.dollars_per_hour = t.orNil(device), t.orNil(dollarsPerHour)
	m := new(Meter)
	if err := call(func() C.enum_cinf_status { return C.cinf_meter_new(&m.c, options) }); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(m, func(m *Meter) { C.cinf_meter_free(m.c) })
	return m, nil
}

func (m *Meter) account(model string) (C.uint32_t, error) {
	text := C.CString(model)
	defer C.free(unsafe.Pointer(text))
	m.mu.Lock()
	defer m.mu.Unlock()
	var number C.uint32_t
	err := call(func() C.enum_cinf_status { return C.cinf_meter_add_model(m.c, text, &number) })
	return number, err
}

// Bill is one request that a meter charges.
type Bill struct {
	meter *Meter // is freed after it
	c     *C.struct_cinf_bill
	open  bool // guarded by the meter's lock
}

// OpenBill opens the bill of a request to model, which waits to be served.
func (m *Meter) OpenBill(model string) (*Bill, error) {
	return m.OpenBillFor(model, "")
}

// OpenBillFor opens the bill of a request of payer, a name known before it; "" is "anonymous".
func (m *Meter) OpenBillFor(model, payer string) (*Bill, error) {
	defer runtime.KeepAlive(m)
	account, err := m.account(model)
	if err != nil {
		return nil, err
	}
	var t texts
	defer func() { t.free() }()
	name := t.orNil(payer)
	b := &Bill{meter: m, open: true}
	if err := call(func() C.enum_cinf_status { return C.cinf_bill_open_for(&b.c, m.c, account, 0, name) }); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(b, func(b *Bill) {
		b.Close("cancelled")
		C.cinf_bill_free(b.c)
	})
	return b, nil
}

// Close ends the request with a reason ("stop", "length", "cancelled" …; any other counts as "failed") and returns its
// final report.  Closing it again returns the same report.
func (b *Bill) Close(finish string) Report {
	defer runtime.KeepAlive(b)
	b.meter.mu.Lock()
	if b.open {
		reason := C.enum_cinf_finish(C.CINF_FINISH_FAILED)
		for i := C.enum_cinf_finish(1); i < C.CINF_FINISH_COUNT; i++ {
			if C.GoString(C.cinf_finish_name(i)) == finish {
				reason = i
			}
		}
		C.cinf_bill_close(b.c, reason)
		b.open = false
	}
	b.meter.mu.Unlock()
	return b.Report()
}

// Report returns the report so far, or the final one.
func (b *Bill) Report() Report {
	defer runtime.KeepAlive(b)
	var r C.struct_cinf_report
	r.struct_size = C.sizeof_struct_cinf_report
	C.cinf_bill_read(b.c, &r)
	return reportOf(&r)
}

// Share is one bill's part in an interval; the weights are the time that its work would have taken alone.
type Share struct {
	Bill                                    *Bill
	PrefillWeight, DecodeWeight             uint64
	InputTokens, CachedTokens, OutputTokens uint32
}

// Busy reports that the device starts to work.
func (m *Meter) Busy() {
	m.mu.Lock()
	defer m.mu.Unlock()
	C.cinf_meter_busy(m.c)
}

// Idle reports that the device has nothing left to do.
func (m *Meter) Idle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	C.cinf_meter_idle(m.c)
}

// Charge charges the time since the last boundary to the shares and returns it.  It fails with Invalid if a bill is
// closed, belongs to another meter, or is in two shares.
func (m *Meter) Charge(shares ...Share) (time.Duration, error) {
	defer runtime.KeepAlive(shares)
	m.mu.Lock()
	defer m.mu.Unlock()
	array := make([]C.struct_cinf_share, len(shares)+1)
	seen := make(map[*Bill]bool)
	for i, s := range shares {
		if s.Bill == nil || s.Bill.meter != m || !s.Bill.open || seen[s.Bill] {
			return 0, &Error{Invalid, "a share's bill is closed, another meter's, or in two shares"}
		}
		seen[s.Bill] = true
		array[i] = C.struct_cinf_share{bill: s.Bill.c, prefill_weight: C.uint64_t(s.PrefillWeight),
			decode_weight: C.uint64_t(s.DecodeWeight), input_tokens: C.uint32_t(s.InputTokens),
			cached_tokens: C.uint32_t(s.CachedTokens), output_tokens: C.uint32_t(s.OutputTokens)}
	}
	return time.Duration(C.cinf_meter_charge(m.c, &array[0], C.uint32_t(len(shares)))), nil
}

// SetPrice changes the price from now on; "" means unpriced.
func (m *Meter) SetPrice(dollarsPerHour string) error {
	var t texts
	defer func() { t.free() }()
	text := t.orNil(dollarsPerHour)
	m.mu.Lock()
	defer m.mu.Unlock()
	return call(func() C.enum_cinf_status { return C.cinf_meter_set_price(m.c, text) })
}

// SetGPUMemory sets a GPU's memory as allocated by this program, and in total, for Metrics.
func (m *Meter) SetGPUMemory(usedBytes, totalBytes uint64) {
	defer runtime.KeepAlive(m)
	C.cinf_meter_set_gpu_memory(m.c, C.uint64_t(usedBytes), C.uint64_t(totalBytes))
}

// SetGPUTaken sets the GPU's used memory as its driver counts it, other programs' included, for Metrics; 0: unknown.
func (m *Meter) SetGPUTaken(usedBytes uint64) {
	defer runtime.KeepAlive(m)
	C.cinf_meter_set_gpu_taken(m.c, C.uint64_t(usedBytes))
}

// Costs returns a snapshot of who used the machine.
func (m *Meter) Costs() (Costs, error) {
	defer runtime.KeepAlive(m)
	return costsOf(func(s *C.struct_cinf_snapshot) error {
		return call(func() C.enum_cinf_status { return C.cinf_meter_snapshot(s, m.c) })
	})
}

// Metrics returns a page for Prometheus and its content type; accept is the scraper's Accept header.
func (m *Meter) Metrics(accept string) (contentType, page string, err error) {
	defer runtime.KeepAlive(m)
	format := formatOf(accept)
	err = call(func() C.enum_cinf_status { return pageOf(&page, m.c, format) })
	return C.GoString(C.cinf_exposition_content_type(format)), page, err
}
