import System

/// The measure that the fan-out is held against: the same bytes to as many sockets, one `send` each, and nothing else.
struct PlainSend {
    let recipients: Int
    let bytes: [UInt8]
    let durationMs: Int

    func run() throws -> (sends: Int, cpuSeconds: Double) {
        let port = Handover<Int>()
        let receiver = try LoopThread.start(name: "sink") { loop in
            let sink = Sink()
            let listener = try Listener(on: loop, host: "127.0.0.1", port: 0) { socket in
                _ = try? Stream(socket, on: loop, delegate: sink)
            }
            port.put(listener.port)
            return listener
        }
        defer {
            receiver.stop()
            receiver.join()
        }
        let loop = try EventLoop()
        defer { loop.close() }
        let mute = Sink()
        let to = port.take()
        let streams = (0..<recipients).map { _ in
            Stream.connect(host: "127.0.0.1", port: to, on: loop, delegate: mute)
        }
        while !streams.allSatisfy(\.isEstablished) { loop.runOnce(timeoutMs: 10) }
        let start = loop.monotonicNs
        let cpuBefore = CurrentProcess.threadCPUNs
        var sends = 0
        while loop.monotonicNs - start < UInt64(durationMs) * 1_000_000 {
            // A tick writes each stream's one array with one call; whoever is full waits for the next round.
            for stream in streams where !stream.isBlocked {
                stream.write(bytes)
                sends += 1
            }
            loop.runOnce(timeoutMs: 1)
        }
        return (sends, Double(CurrentProcess.threadCPUNs - cpuBefore) / 1e9)
    }

    /// Takes everything and keeps nothing.
    private final class Sink: StreamDelegate {
        func stream(_ stream: Stream, received bytes: Span<UInt8>) {}
        func streamClosed(_ stream: Stream, reason: CloseReason) {}
    }
}
