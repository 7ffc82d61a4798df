// Package lambdaapi is one instance of a function as AWS Lambda runs it: a process that is started, takes events from the Runtime API over
// HTTP, is frozen whenever it waits for the next one, thawed when that comes, and ended. Programs built for Lambda's OS-only runtimes
// (provided.al2023), such as those with aws-lambda-go, run on it as they are. It decides nothing: which instance gets an
// event, and how long an instance lives, is for who starts them.
//
// What the process finds at AWS_LAMBDA_RUNTIME_API:
//
//	GET  /2018-06-01/runtime/invocation/next           200 with the event, once there is one
//	POST /2018-06-01/runtime/invocation/ID/response    202; 400 if ID is not the event at hand; 413 if longer than [MaxPayload]
//	POST /2018-06-01/runtime/invocation/ID/error       202, 400
//	POST /2018-06-01/runtime/init/error                202; 403 after init
//	POST /2020-01-01/extension/register                200; 403 after init, without a name, or for SHUTDOWN
//	GET  /2020-01-01/extension/event/next              200 with an INVOKE event, if registered for it; else it waits for ever
//
// The event has the headers Lambda-Runtime-Aws-Request-Id, -Deadline-Ms, -Invoked-Function-Arn and -Trace-Id. An error while a response is
// streamed comes in the trailers Lambda-Runtime-Function-Error-Type and -Body. What is refused is told as
// {"errorMessage": ..., "errorType": ...}, with the types that Lambda uses.
//
// As on Lambda (Developer Guide, "Using the Lambda runtime API" and "Using the Lambda Extensions API"; the open source of its Runtime
// Interface Emulator where that is silent):
//
//   - the process is frozen when it and its extensions all ask for the next event, the first time after init;
//   - a process is ended by SIGKILL, unless it has registered an extension: then by SIGTERM, and SIGKILL 500 ms later;
//   - extensions that live in the function's process cannot register for SHUTDOWN;
//   - an event that is not answered by its deadline, or whose process ends, is an error of the function, and the instance ends.
//
// Unlike there an instance that ends is not started again in its place, init has no time of its own for bursts, only processes are frozen and
// not a machine, so that clocks go on and the kernel still acknowledges TCP, and there are no external extensions, no SnapStart and no Telemetry API.
package lambdaapi
