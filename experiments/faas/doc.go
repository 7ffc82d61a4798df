// Package faas is a function platform for the lab, which does what a provider does: it keeps functions, takes events, finds a free instance
// or starts one, hands it the event, waits, answers, and keeps the log; instances that wait are frozen, and reclaimed after a time. Each
// instance lives on a host of the lab, in a network namespace of its own behind that host's NAT. Functions are programs for AWS Lambda's
// OS-only runtimes (package lambdaapi), as they are; [Platform.ServeHTTP] is Lambda's Invoke API, so that AWS SDKs and the
// AWS CLI can call them with this as their endpoint. Signatures are not looked at: who reaches the listener may invoke.
//
//	POST /2015-03-31/functions/NAME/invocations
//	X-Amz-Invocation-Type  RequestResponse (the default), Event or DryRun
//	X-Amz-Log-Type         Tail: the last 4 KiB of the log come back, in base64, as X-Amz-Log-Result
//	X-Amz-Client-Context   JSON in base64
//
//	200  the response, or with X-Amz-Function-Error the function's error     404  ResourceNotFoundException
//	202  the event is queued                                                  413  RequestTooLargeException
//	204  a dry run went well                                                  429  TooManyRequestsException
//	400  InvalidRequestContentException, InvalidParameterValueException       500  ServiceException
//
// NAME may be an ARN, and may end in :$LATEST. A payload is JSON of at most [MaxSync] or [MaxAsync] bytes; without one it is {}.
//
// A host of the pool has one instance at most, so the pool bounds how many run. An event goes to an instance of its function that
// waits, the one used last; else to one that has answered and is about to wait; else to a new one on a free host, chosen at random; else
// to a new one in place of the instance of another function that has waited longest. If all hosts are busy, or as many as the function may
// have, the event is throttled. The instance's Runtime API is at 127.0.0.1:9001 of its namespace, where nobody else is.
//
// As on Lambda (Developer Guide, "Understanding the Lambda execution environment lifecycle", "Error handling for asynchronous
// invocation" and "Lambda quotas"; AWS Compute Blog, "AWS Lambda standardizes billing for INIT Phase", 2025):
//
//   - billed is the time from when the process got the event until it and its extensions asked for the next, and before the first event
//     of an instance its init, which has 10 s; the sum is rounded up to 1 ms, and multiplied by the memory the function is set to have;
//   - an init that fails is billed too, and is the error of the event it was for;
//   - a queued event that ends in an error of the function is tried 2 more times, 1 and then 2 minutes later; one that is throttled is
//     tried again after 1 s, 2 s and so on up to 5 minutes, for 6 hours.
//
// Unlike there: an init that failed is not tried again for the same event; memory is measured and billed, not enforced; an instance has as
// much CPU as the machine gives it, and sees the machine's files, but for /tmp, which is its own, empty at first, with 512 MiB in memory; and
// there are no versions, roles or destinations of failed events.
//
// Freezing is by SIGSTOP to the process group of the instance, and not by a cgroup, of which a directory would remain if the platform were
// killed. As it is, nothing remains: the lab's PID namespace ends with it.
package faas
