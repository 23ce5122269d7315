// libFuzzer's entry: `scripts/fuzz NAME [libFuzzer options]`. One program for all decoders, since libFuzzer calls one
// function: `FANOUT_FUZZ_TARGET` says which of them it feeds.

import System

private let target: FuzzTarget = {
    let name = Environment["FANOUT_FUZZ_TARGET"] ?? ""
    guard let target = FuzzTarget.all.first(where: { $0.name == name }) else {
        preconditionFailure("FANOUT_FUZZ_TARGET must be one of \(FuzzTarget.all.map(\.name))")
    }
    return target
}()

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ data: UnsafePointer<UInt8>?, _ count: Int) -> Int32 {
    unsafe target.feed([UInt8](UnsafeBufferPointer(start: data, count: count)))
    return 0
}
