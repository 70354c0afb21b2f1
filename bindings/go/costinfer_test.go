package costinfer

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// The scenario that all bindings share (tests/conformance).
type scenario struct {
	Model, Device  string
	DollarsPerHour string `json:"dollars_per_hour"`
	Tokenize       []struct {
		Text string
		IDs  []int32
	}
	Generate []struct {
		Name, Prompt string
		MaxTokens    uint32 `json:"max_tokens"`
		N            uint32
		Stop         []string
		LogitBias    []struct {
			Token int32
			Bias  float32
		} `json:"logit_bias"`
		Choices []struct {
			Text, Finish string
			IDs          []int32
		}
		InputTokens  uint32 `json:"input_tokens"`
		OutputTokens uint32 `json:"output_tokens"`
	}
	Score []struct {
		IDs []int32
		Sum float64
	}
	Cost []struct {
		NS             uint64
		DollarsPerHour string `json:"dollars_per_hour"`
		Dollars        string
	}
	Errors []struct {
		Call, Folder, Name, Price, Device, Status string
		IDs                                       []int32
		Repeat                                    int
	}
}

func folder(t *testing.T) string {
	models := os.Getenv("COSTINFER_MODELS")
	if models == "" {
		models = "../../examples/models"
	}
	if _, err := os.Stat(models + "/stories-small"); err != nil {
		t.Skip(err)
	}
	return models + "/stories-small"
}

func open(t *testing.T) (*Engine, *Model) {
	e, err := Open(Options{Device: "cpu-reference", DollarsPerHour: "2.50"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	m, err := e.Load(folder(t), ModelOptions{Name: "small"})
	if err != nil {
		t.Fatal(err)
	}
	return e, m
}

func costs(t *testing.T, e *Engine) Costs {
	c, err := e.Costs()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestScenario(t *testing.T) {
	path := os.Getenv("COSTINFER_SCENARIO")
	if path == "" {
		path = "../../tests/conformance/scenario.json"
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s scenario
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	e, err := Open(Options{Device: s.Device, DollarsPerHour: s.DollarsPerHour})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m, err := e.Load(folder(t), ModelOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Tokenize {
		ids, err := m.Encode(c.Text)
		if err != nil || !reflect.DeepEqual(ids, c.IDs) {
			t.Errorf("%q: %v %v", c.Text, ids, err)
		}
		if text, err := m.Decode(c.IDs); err != nil || text != c.Text {
			t.Errorf("%v: %q %v", c.IDs, text, err)
		}
	}
	var served time.Duration
	for _, c := range s.Generate {
		r := Request{Prompt: c.Prompt, MaxTokens: c.MaxTokens, N: c.N, Stop: c.Stop}
		for _, b := range c.LogitBias {
			r.LogitBias = map[int32]float32{b.Token: b.Bias}
		}
		result, err := m.Generate(context.Background(), r)
		if err != nil {
			t.Fatal(c.Name, err)
		}
		if len(result.Choices) != len(c.Choices) {
			t.Fatal(c.Name, len(result.Choices))
		}
		for i, want := range c.Choices {
			got := result.Choices[i]
			if got.Text != want.Text || got.Finish != want.Finish || !reflect.DeepEqual(got.IDs, want.IDs) {
				t.Errorf("%s: %+v", c.Name, got)
			}
		}
		if result.Report.InputTokens != c.InputTokens || result.Report.OutputTokens != c.OutputTokens {
			t.Errorf("%s: %+v", c.Name, result.Report)
		}
		if want, _ := CostOf(uint64(result.Report.Device), s.DollarsPerHour); want != result.Report.Cost {
			t.Errorf("%s: %v, want %v", c.Name, result.Report.Cost, want)
		}
		served += result.Report.Device
	}
	if got := costs(t, e).Serve; got != served {
		t.Errorf("served %v, want %v", got, served)
	}
	for _, c := range s.Score {
		scores, err := m.Score(c.IDs)
		if err != nil || !math.IsNaN(float64(scores[0])) {
			t.Fatal(scores, err)
		}
		sum := 0.0
		for _, x := range scores[1:] {
			sum += float64(x)
		}
		if math.Abs(sum-c.Sum) > 1e-3 {
			t.Errorf("%v: %v, want %v", c.IDs, sum, c.Sum)
		}
	}
	for _, c := range s.Cost {
		if got, err := CostOf(c.NS, c.DollarsPerHour); err != nil || got.String() != c.Dollars {
			t.Errorf("%+v: %v %v", c, got, err)
		}
	}
	for _, c := range s.Errors {
		var err error
		switch c.Call {
		case "load":
			_, err = e.Load(c.Folder, ModelOptions{})
		case "load again":
			_, err = e.Load(folder(t), ModelOptions{})
		case "generate":
			var ids []int32
			for i := 0; i < c.Repeat || i == 0; i++ {
				ids = append(ids, c.IDs...)
			}
			_, err = m.Generate(context.Background(), Request{PromptIDs: ids})
		case "price":
			err = e.SetPrice(c.Price)
		case "find":
			_, err = e.Find(c.Name)
		case "open":
			_, err = Open(Options{Device: c.Device})
		default:
			t.Fatal("unknown call", c.Call)
		}
		var failure *Error
		if !errors.As(err, &failure) || failure.Status.Error() != c.Status || failure.Message == "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
	c := costs(t, e)
	if c.Serve+c.Load+c.Idle != c.AsOf {
		t.Errorf("%v + %v + %v is not %v", c.Serve, c.Load, c.Idle, c.AsOf)
	}
}

func TestCancelledByContext(t *testing.T) {
	e, m := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := m.Submit(Request{Prompt: "Once upon a time", IgnoreEOS: true})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := s.Next(ctx); err != nil || first.Text != " there" {
		t.Fatal(first, err)
	}
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	if r := s.Report(); r.Finish != "cancelled" || r.Device != costs(t, e).Serve {
		t.Errorf("%+v", r)
	}
	if _, err := s.Next(context.Background()); !errors.Is(err, Closed) {
		t.Error(err)
	}
}

func TestGoroutinesShareTheDevice(t *testing.T) {
	e, m := open(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var sum time.Duration
	for i := 0; i < 8; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r, err := m.Generate(context.Background(), Request{Prompt: "Lily", MaxTokens: 20, Logprobs: true})
			if err != nil || len(r.Choices[0].IDs) != 20 || len(r.Choices[0].Logprobs) != 20 {
				t.Error(r, err)
				return
			}
			mu.Lock()
			sum += r.Report.Device
			mu.Unlock()
		}()
	}
	wg.Wait()
	c := costs(t, e)
	if c.Serve != sum || c.Models[0].Finished["length"] != 8 {
		t.Errorf("%v, want %v: %+v", c.Serve, sum, c.Models)
	}
	kind, page, err := e.Metrics("application/openmetrics-text; version=1.0.0")
	if err != nil || !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(page, "# EOF\n") {
		t.Error(kind, err)
	}
}

func TestAfterClose(t *testing.T) {
	e, m := open(t)
	if err := m.Unload(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Submit(Request{Prompt: "x"}); !errors.Is(err, Closed) {
		t.Error(err)
	}
	e.Close()
	e.Close()
	if _, err := e.Costs(); !errors.Is(err, Closed) {
		t.Error(err)
	}
}

func TestCostsAddExactly(t *testing.T) {
	one, _ := CostOf(1, "0.1")
	three, _ := CostOf(3, "0.1")
	if one.Add(one).Add(one) != three || one.Rat().Cmp(three.Rat()) >= 0 {
		t.Error(one, three)
	}
	if Version() == "" {
		t.Error("no version")
	}
}
