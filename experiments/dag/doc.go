// Package dag runs graphs of tasks on functions, by a static schedule: what Wukong does (SoCC 2020), small. A function is invoked for each leaf. It
// runs the leaf's task and goes on with those that need its output:
//
//   - a task that needs nothing else it runs itself, and the output stays where it is;
//   - of a task with several inputs, all who have one arrive, and the last one runs it, with its own input where it is. The others hand theirs over;
//   - if several tasks need the output, it runs one of those that need nothing else, and invokes functions for the rest of them.
//
// Who is last, a [Board] tells, over HTTP: the same for all ways to hand over, which are
//
//	store    who is not the last puts its output, arrives, and ends; the last gets it. The order is such that nobody puts what is not needed
//	fnwire   who is not the last waits until there is one, and sends its output to it. Both have linked meanwhile
//	wukong3  pairs by name, punches and sends, as the literature did (package experiments/peer/wukong3)
//
// An output is a stream. One that a task can begin before it has all its inputs, such as a sum of vectors, flows through: over fnwire from the leaves to
// the result at once, over a store as far as the next fan-in. Over fnwire, tasks whose large inputs flow are run where the schedule says ([Graph.Placed])
// rather than by who is last, so that no function takes in much more than others. Those link at the start, before their lines are full.
//
// It is no engine: a function that dies fails the run, and nothing is scheduled anew.
package dag
