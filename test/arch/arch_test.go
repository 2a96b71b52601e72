// Package arch makes the import rules of the layout executable: every rule names the packages it binds, what they
// must not import, and why.
//
// Invariants:
//
//   - A rule binds a package's own code, not its tests.
//   - A rule that nothing matches yet is no failure: it waits for its package.
package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tierlog/tierlog"

// rule forbids imports. Patterns are import paths; a leading "./" stands for the module, a trailing "/..." for the
// package and everything below it.
type rule struct {
	name   string
	in     []string
	except []string // packages of in that the rule does not bind
	deny   []string
	allow  []string // packages of deny that may be imported after all
	deep   bool     // also what the imports import
	why    string
}

var (
	engine = []string{"./tiered/...", "./cache/...", "./cluster/...", "./objstore/..."}
	awsSDK = []string{"github.com/aws/..."}
	minio  = []string{"github.com/minio/minio-go/..."}
	kmsg   = []string{"github.com/twmb/franz-go/..."}
)

var rules = []rule{
	{
		name: "nobody imports a command", in: []string{"./..."}, deny: []string{"./cmd/..."},
		why: "a command is flags, wiring and signals; logic that others need belongs in a package",
	},
	{
		name: "no test code in the product", in: []string{"./..."}, except: []string{"./test/...", "./bench/...", "./objstore/objtest/..."},
		deny: []string{"testing", "./test/...", "./bench/...", "./objstore/objtest/..."},
		why:  "fault injection and conformance suites must not ship in the binary",
	},
	{
		name: "functions are not brokers", in: []string{"./functions/..."}, deny: []string{"./broker/...", "./wire/...", "./group/...", "./txn/..."}, deep: true,
		why: "a Lambda plans and executes maintenance over the bucket; it must run without a live broker",
	},
	{
		name: "the console reads through its own interface", in: []string{"./console/..."}, deny: engine, deep: true,
		why: "the console declares the read interface that it needs, so that the engine can change under it",
	},
	{
		name: "the broker does not choose a store's driver", in: []string{"./broker/..."}, deny: slices.Concat(awsSDK, minio), deep: true,
		why: "handlers see objstore.Store alone; commands choose the driver",
	},
	{
		name: "wire does not know the engine", in: []string{"./wire/..."}, deny: engine, deep: true,
		why: "wire listens, frames, orders and limits; what a request means is the broker's business",
	},
	{
		name: "coordinators are pure", in: []string{"./group/...", "./txn/..."}, deny: []string{"net", "net/...", "os"},
		why: "input and time in, effects out: only then can a simulation drive them through every interleaving",
	},
	{
		name: "coordinators do not know the bucket", in: []string{"./group/...", "./txn/..."}, deny: []string{"./objstore/..."}, deep: true,
		why: "their state rides in the log through a persistence interface that they declare",
	},
	{
		name: "cluster is below the broker and its log", in: []string{"./cluster/..."}, deny: []string{"./broker/...", "./tiered"}, deep: true,
		why: "the metadata log must be readable by tools and functions that run no broker; tiered's format packages are fine",
	},
	{
		name: "the log does not know the protocol", in: []string{"./tiered/..."}, deny: slices.Concat([]string{"./broker/...", "./wire/..."}, kmsg), deep: true,
		why: "the engine stores record batches; which Kafka request brought them is above it",
	},
	{
		name: "the log does not know its store", in: []string{"./tiered/..."}, deny: slices.Concat(awsSDK, minio), deep: true,
		why: "only the drivers under objstore import a storage SDK",
	},
	{
		name: "formats and jobs do not import their parent", in: []string{"./tiered/..."}, except: []string{"./tiered"}, deny: []string{"./tiered"}, deep: true,
		why: "readers without a broker use the formats alone",
	},
	{
		name: "cache stands alone", in: []string{"./cache/..."}, deny: []string{"./..."}, allow: []string{"./cache/..."},
		why: "a block cache maps keys to bytes and needs to know nothing of ours",
	},
	{
		name: "record stands alone", in: []string{"./record/..."}, deny: []string{"./..."}, allow: []string{"./record/..."},
		why: "checking a Kafka record batch depends on bytes alone; tools reuse it",
	},
	{
		name: "membuf stands alone", in: []string{"./membuf/..."}, deny: []string{"./..."}, allow: []string{"./membuf/..."},
		why: "buffers are below everything that uses them",
	},
	{
		name: "objstore stands alone", in: []string{"./objstore/..."}, deny: []string{"./..."}, allow: []string{"./objstore/..."},
		why: "the store is the lowest layer: tools of other projects could use it",
	},
	{
		name: "one home for the AWS SDK", in: []string{"./..."}, except: []string{"./objstore/s3/...", "./functions/...", "./test/...", "./bench/..."}, deny: awsSDK,
		why: "conditional writes with the SDK's retries off are subtle; they live in one reviewed place",
	},
	{
		name: "one home for minio-go", in: []string{"./..."}, except: []string{"./objstore/minio/...", "./test/...", "./bench/..."}, deny: minio,
		why: "as for the AWS SDK",
	},
}

// pure lists packages that must not read a clock: (package pattern, reason).
var pure = []rule{
	{
		name: "coordinators read no clock", in: []string{"./group/...", "./txn/..."},
		why: "time is an input, so that a simulation can choose it",
	},
	{
		name: "formats read no clock", in: []string{"./record/...", "./tiered/wal/...", "./tiered/segment/...", "./tiered/manifest/..."},
		why: "the same input must give the same bytes",
	},
}

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Dir,Standard,GoFiles,Imports,Deps", "./...")
	cmd.Dir = filepath.Join("..", "..")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list printed what is no JSON: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

// matches reports whether an import path fits one of the patterns.
func matches(path string, patterns []string) bool {
	for _, p := range patterns {
		if rest, ours := strings.CutPrefix(p, "./"); ours {
			p = module + "/" + rest
		}
		base, below := strings.CutSuffix(p, "/...")
		if path == base || below && strings.HasPrefix(path, base+"/") {
			return true
		}
	}
	return false
}

// violations returns one line for each forbidden import of a package.
func (r rule) violations(p listed) []string {
	if !matches(p.ImportPath, r.in) || matches(p.ImportPath, r.except) {
		return nil
	}
	reached := p.Imports
	if r.deep {
		reached = p.Deps
	}
	var bad []string
	for _, imp := range reached {
		if matches(imp, r.deny) && !matches(imp, r.allow) && imp != p.ImportPath {
			bad = append(bad, fmt.Sprintf("%s must not import %s: %s", p.ImportPath, imp, r.why))
		}
	}
	return bad
}

func TestImportRules(t *testing.T) {
	pkgs := list(t)
	ours := 0
	for _, p := range pkgs {
		if matches(p.ImportPath, []string{"./..."}) {
			ours++
		}
	}
	if ours < 3 {
		t.Fatalf("go list found %d packages of %s: the rules would check nothing", ours, module)
	}
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			for _, p := range pkgs {
				for _, v := range r.violations(p) {
					t.Error(v)
				}
			}
		})
	}
}

// clockCalls returns the positions in a file where the wall clock is read or waited for.
func clockCalls(fset *token.FileSet, f *ast.File) []string {
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(
			[]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}, sel.Sel.Name) {
			found = append(found, fmt.Sprintf("%s: time.%s", fset.Position(sel.Pos()), sel.Sel.Name))
		}
		return true
	})
	return found
}

func TestPurePackagesReadNoClock(t *testing.T) {
	pkgs := list(t)
	for _, r := range pure {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			for _, p := range pkgs {
				if !matches(p.ImportPath, r.in) {
					continue
				}
				for _, name := range p.GoFiles {
					fset := token.NewFileSet()
					f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
					if err != nil {
						t.Fatal(err)
					}
					for _, c := range clockCalls(fset, f) {
						t.Errorf("%s: %s", c, r.why)
					}
				}
			}
		})
	}
}

// TestRulesBite shows that the checker finds what it is there for.
func TestRulesBite(t *testing.T) {
	find := func(name string) rule {
		for _, r := range rules {
			if r.name == name {
				return r
			}
		}
		t.Fatalf("no rule %q", name)
		return rule{}
	}
	pkg := func(path string, deps ...string) listed {
		for i := range deps {
			deps[i] = strings.Replace(deps[i], "./", module+"/", 1)
		}
		return listed{ImportPath: module + "/" + path, Imports: deps, Deps: deps}
	}
	for _, tc := range []struct {
		rule string
		pkg  listed
		want int
	}{
		{"formats and jobs do not import their parent", pkg("tiered/wal", "./tiered", "./tiered/logid"), 1},
		{"formats and jobs do not import their parent", pkg("tiered", "./tiered/wal"), 0},
		{"cluster is below the broker and its log", pkg("cluster", "./tiered/slotlog"), 0},
		{"cluster is below the broker and its log", pkg("cluster/members", "./tiered", "./broker/fetch"), 2},
		{"objstore stands alone", pkg("objstore/dir", "./objstore", "os"), 0},
		{"objstore stands alone", pkg("objstore/dir", "./membuf"), 1},
		{"one home for the AWS SDK", pkg("objstore/s3", "github.com/aws/aws-sdk-go-v2/aws"), 0},
		{"one home for the AWS SDK", pkg("broker", "github.com/aws/aws-sdk-go-v2/aws"), 1},
		{"no test code in the product", pkg("wire", "testing"), 1},
		{"no test code in the product", pkg("wire", "testing/fstest"), 0},
		{"nobody imports a command", pkg("cli", "./cmd/tierlog"), 1},
		{"nobody imports a command", pkg("cmd2", "./cmdline"), 0},
	} {
		if got := find(tc.rule).violations(tc.pkg); len(got) != tc.want {
			t.Errorf("%s, %s: %d violations, want %d: %q", tc.rule, tc.pkg.ImportPath, len(got), tc.want, got)
		}
	}
}

// TestClockCheckBites shows that a clock call is found.
func TestClockCheckBites(t *testing.T) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "x.go", "package x\nimport \"time\"\nvar a, b = time.Now(), time.Second\n", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := clockCalls(fset, f); len(got) != 1 {
		t.Errorf("found %q, want the one call of time.Now", got)
	}
}
