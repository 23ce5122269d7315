import Ingest
import PushLink
import System
import TestSupport
import Testing
import WebSocket
import Wire

@Suite(.serialized) struct SessionTests {
    @Test func `a message goes to the log, is acknowledged with its place, and comes to another device`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let (anna, ben) = (UserID.random(), UserID.random())
        let sender = try bench.device(anna)
        let receiver = try bench.device(ben)
        try bench.wait("both are live") {
            sender.frames("caught_up").count == 1 && receiver.frames("caught_up").count == 1
        }
        let (chat, id) = (ChatID.random(), MessageID.random())
        sender.send(#"{"type":"send","id":"\#(id)","chat":"\#(chat)","text":"hello \u00e4"}"#)
        try bench.wait("sent") { sender.frames("sent").count == 1 }
        #expect(sender.frames("sent")[0].hasPrefix(#"{"type":"sent","id":"\#(id)","chat":"\#(chat)","seq":0,"ts":"#))
        let records = try bench.records(.incoming, atLeast: 1)
        #expect(
            records == [
                #"{"id":"\#(id)","chat":"\#(chat)","from":"\#(anna)","device":"\#(sender.device)","kind":"text","text":"hello \u00e4"}"#
            ])

        worker.push(#"{"type":"message","cursor":"x"}"#, offset: 101, to: [ben, anna])
        try bench.wait("delivered") { receiver.frames("message").count == 1 && sender.frames("message").count == 1 }
        try bench.wait("acknowledged") { worker.acknowledged == 2 }
        worker.push(#"{"type":"message","again":1}"#, offset: 101, to: [ben])
        worker.push(#"{"type":"message","next":1}"#, offset: 102, to: [ben])
        try bench.wait("only the new one comes") { receiver.frames("message").count == 2 }
        #expect(receiver.frames("message")[1].contains("next"))
    }

    @Test func `hello tells who the session is, and a new device is caught up at once`() throws {
        let bench = try Bench()
        _ = try bench.worker()
        let user = UserID.random()
        let device = try bench.device(user)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(device.subprotocol == "fanout.v1")
        #expect(device.frames[0].contains(#""instance":"test","user":"\#(user)","device":"\#(device.device)""#))
        #expect(
            device.frames[1]
                == #"{"type":"caught_up","cursor":"\#(Cursor(offset: 100, timestamp: 1000).text)"}"#)
    }

    @Test func `a device that was away is filled before it is live, and nothing comes twice`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let user = UserID.random()
        let cursor = Cursor(offset: 90, timestamp: 900)
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"\#(cursor.text)"}"#)
        try bench.wait("a fill is asked for") { worker.fills.count == 1 }
        #expect(worker.fills[0].after == cursor && worker.fills[0].through == 100)
        worker.push(#"{"type":"message","n":101}"#, offset: 101, to: [user])
        worker.page(
            worker.fills[0], [(95, #"{"type":"message","n":95}"#), (97, #"{"type":"message","n":97}"#)],
            upTo: Cursor(offset: 97, timestamp: 970), isLast: false)
        try bench.wait("the next page is asked for") { worker.fills.count == 2 }
        #expect(worker.fills[1].after == Cursor(offset: 97, timestamp: 970))
        worker.page(
            worker.fills[1], [(100, #"{"type":"message","n":100}"#)], upTo: Cursor(offset: 100, timestamp: 1000),
            isLast: true)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(
            device.frames.dropFirst().map { $0 } == [
                #"{"type":"message","n":95}"#, #"{"type":"message","n":97}"#, #"{"type":"message","n":100}"#,
                #"{"type":"message","n":101}"#,
                #"{"type":"caught_up","cursor":"\#(Cursor(offset: 101, timestamp: 1010).text)"}"#,
            ])
    }

    @Test func `a device whose place is lost hears so and is live`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let user = UserID.random()
        let device = try bench.device(user, hello: #"{"type":"hello","cursor":"nonsense"}"#)
        try bench.wait("caught up") { device.frames("caught_up").count == 1 }
        #expect(device.frames("caught_up")[0].contains(#""reset":true"#))
        // Older than the window, and there is no History to ask.
        let old = try bench.device(
            UserID.random(), hello: #"{"type":"hello","cursor":"\#(Cursor(offset: 1, timestamp: 10).text)"}"#)
        try bench.wait("a fill is asked for") { worker.fills.count == 1 }
        let fill = worker.fills[0]
        worker.send(
            .cannotFill(
                request: fill.request, session: fill.session, .older, windowStart: Cursor(offset: 60, timestamp: 600)))
        try bench.wait("the rest is asked for") { worker.fills.count == 2 }
        #expect(worker.fills[1].after == Cursor(offset: 60, timestamp: 600))
        worker.page(worker.fills[1], [], upTo: Cursor(offset: 100, timestamp: 1000), isLast: true)
        try bench.wait("caught up") { old.frames("caught_up").count == 1 }
        #expect(old.frames("caught_up")[0].contains(#""reset":true"#))
    }

    @Test func `a new owner of the partition takes over, and only a real gap is filled`() throws {
        let bench = try Bench()
        let first = try bench.worker("first", term: 1)
        let user = UserID.random()
        let device = try bench.device(user)
        try bench.wait("live") { device.frames("caught_up").count == 1 }
        first.push(#"{"type":"message","n":101}"#, offset: 101, to: [user])
        try bench.wait("delivered") { device.frames("message").count == 1 }
        first.close()
        let second = try bench.worker("second", term: 2)
        try bench.wait("the session is registered with the new owner") { second.session(of: user) != nil }
        #expect(second.session(of: user)?.after == Cursor(offset: 101, timestamp: 1010))
        second.push(#"{"type":"message","n":101}"#, offset: 101, to: [user])
        second.push(#"{"type":"message","n":102}"#, offset: 102, to: [user])
        try bench.wait("delivered") { device.frames("message").count == 2 }
        #expect(device.frames("message")[1].contains("102"))
        #expect(second.fills.isEmpty)
        // One that slept through the change of owner is refused.
        let late = try bench.worker("late", term: 1)
        try bench.wait("refused") {
            late.messages.contains { if case .refused(_, let term) = $0 { term == 2 } else { false } }
        }
    }

    @Test func `a second session of a device takes over from the first`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let (user, id) = (UserID.random(), DeviceID.random())
        let first = try bench.device(user, device: id)
        try bench.wait("live") { first.frames("caught_up").count == 1 }
        let second = try bench.device(user, device: id)
        try bench.wait("the first is closed") { first.isClosed }
        #expect(first.closeCode == CloseCode(rawValue: 4003))
        try bench.wait("the second is live") { second.frames("caught_up").count == 1 }
        try bench.wait("the first is unregistered") { worker.sessions.count == 1 }
    }

    @Test func `cursors are stored once a second and looked up again`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let user = UserID.random()
        let device = try bench.device(user)
        try bench.wait("live") { device.frames("caught_up").count == 1 }
        for offset in [110, 111, 112] as [Int64] {
            device.send(#"{"type":"ack","cursor":"\#(Cursor(offset: offset, timestamp: 1).text)"}"#)
        }
        try bench.wait("the last is stored") {
            worker.messages.contains(
                .storeCursors([
                    DeviceCursor(user: user, device: device.device, cursor: Cursor(offset: 112, timestamp: 1))
                ]))
        }
        let again = try bench.device(user, device: device.device, hello: #"{"type":"hello","cursor":"server"}"#)
        var request: UInt32?
        try bench.wait("the cursor is looked up") {
            for message in worker.messages {
                if case .lookUpCursor(let number, user, device.device) = message { request = number }
            }
            return request != nil
        }
        worker.send(.storedCursor(request: request ?? 0, .found(Cursor(offset: 100, timestamp: 1000))))
        try bench.wait("caught up") { again.frames("caught_up").count == 1 }
    }

    @Test func `watchers hear of presence, once each change`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let (user, friend) = (UserID.random(), UserID.random())
        let device = try bench.device(user)
        try bench.wait("live") { device.frames("caught_up").count == 1 }
        device.send(#"{"type":"watch","user":"\#(friend)"}"#)
        try bench.wait("the owner is asked") { worker.messages.contains(.watch([friend])) }
        worker.send(.presence([PresenceNotice(user: friend, status: .offline, lastSeen: 5)]))
        worker.send(.presence([PresenceNotice(user: friend, status: .offline, lastSeen: 5)]))
        worker.send(.presence([PresenceNotice(user: friend, status: .online, lastSeen: 6)]))
        try bench.wait("two notices") { device.frames("presence").count == 2 }
        #expect(
            device.frames("presence")[0] == #"{"type":"presence","user":"\#(friend)","status":"offline","last_seen":5}"#
        )
        device.send(#"{"type":"unwatch","user":"\#(friend)"}"#)
        try bench.wait("the owner is told") { worker.messages.contains(.unwatch([friend])) }
    }

    @Test func `a device that does not keep up hears of presence when it does, as it is then`() throws {
        let bench = try Bench {
            $0.limits.sessionQueueBytes = 64 << 20
            $0.limits.sessionQueueFragments = 100_000
        }
        let worker = try bench.worker()
        let (user, friend) = (UserID.random(), UserID.random())
        let device = try bench.device(user)
        try bench.wait("live") { device.frames("caught_up").count == 1 }
        device.send(#"{"type":"watch","user":"\#(friend)"}"#)
        try bench.wait("the owner is asked") { worker.messages.contains(.watch([friend])) }
        worker.send(.presence([PresenceNotice(user: friend, status: .offline, lastSeen: 5)]))
        try bench.wait("one notice") { device.frames("presence").count == 1 }
        device.stream?.pauseReading()
        // More than the sockets between them hold.
        let text = String(repeating: "x", count: 500_000)
        for offset in 101...160 {
            worker.push(#"{"type":"message","text":"\#(text)"}"#, offset: Int64(offset), to: [user])
            try bench.wait("it is queued") { worker.acknowledged == UInt64(offset - 100) }
        }
        for (status, ms) in [(PresenceStatus.online, 6), (.offline, 7), (.online, 8)] {
            worker.send(.presence([PresenceNotice(user: friend, status: status, lastSeen: Int64(ms))]))
        }
        worker.push(#"{"type":"message","text":"last"}"#, offset: 161, to: [user])
        try bench.wait("it is queued") { worker.acknowledged == 61 }
        device.stream?.resumeReading()
        try bench.wait("all is read") { device.frames("message").count == 61 && device.frames("presence").count > 1 }
        #expect(device.frames("presence").count == 2)
        #expect(device.frames("presence").last?.contains(#""status":"online","last_seen":8"#) == true)
    }

    @Test func `typing and receipts go to the log of signals`() throws {
        let bench = try Bench()
        let (user, chat) = (UserID.random(), ChatID.random())
        let device = try bench.device(user)
        device.send(#"{"type":"read","chat":"\#(chat)","seq":7}"#)
        device.send(#"{"type":"typing","chat":"\#(chat)"}"#)
        device.send(#"{"type":"delivered","chat":"\#(chat)","seq":8}"#)
        let signals = try bench.records(.signals, atLeast: 3)
        #expect(signals[0].contains(#""kind":"read","seq":7"#))
        #expect(signals[1].contains(#""kind":"typing""#))
        #expect(signals[2].contains(#""kind":"delivered","seq":8"#))
    }

    @Test func `what a device has is told once a second and chat, and the last of it in any case`() throws {
        let bench = try Bench()
        let chat = ChatID.random()
        let device = try bench.device(UserID.random())
        for seq in 1...20 { device.send(#"{"type":"delivered","chat":"\#(chat)","seq":\#(seq)}"#) }
        func told() throws -> [String] {
            try bench.records(.signals, atLeast: bench.metric("fanout_ingest_signals_total"))
                .compactMap { $0.firstMatch(of: /"seq":(\d+)/).map { String($0.1) } }
        }
        try bench.wait("the first and the last are told") { bench.metric("fanout_ingest_signals_total") == 2 }
        #expect(try told() == ["1", "20"])
        // Nobody waits for a session that ends.
        for seq in 21...23 { device.send(#"{"type":"delivered","chat":"\#(chat)","seq":\#(seq)}"#) }
        device.send(#"{"type":"ping"}"#)
        try bench.wait("taken") { device.frames("pong").count == 1 }
        device.close()
        try bench.wait("the rest is told") { (try? told().last) == "23" }
    }

    @Test func `ping is answered with its number`() throws {
        let bench = try Bench()
        let device = try bench.device(UserID.random())
        device.send(#"{"type":"ping","n":-12.5e3}"#)
        device.send(#"{"type":"ping"}"#)
        try bench.wait("pongs") { device.frames("pong").count == 2 }
        #expect(device.frames("pong") == [#"{"type":"pong","n":-12.5e3}"#, #"{"type":"pong"}"#])
    }

    @Test func `a drained server sends its devices elsewhere, each after a time of its own`() throws {
        let bench = try Bench()
        _ = try bench.worker()
        let devices = try (0..<5).map { _ in try bench.device(UserID.random()) }
        try bench.wait("live") { devices.allSatisfy { $0.frames("caught_up").count == 1 } }
        bench.server.stop()
        try bench.wait("all are closed") { devices.allSatisfy(\.isClosed) }
        #expect(devices.allSatisfy { $0.closeCode == .serviceRestart })
        #expect(devices.allSatisfy { Int($0.closeReason) != nil })
    }

    @Test func `a session that a worker says was taken over on another server is closed, and no other`() throws {
        let bench = try Bench()
        let worker = try bench.worker()
        let (user, id) = (UserID.random(), DeviceID.random())
        let partition = user.partition(count: 4)
        let old = try bench.device(user, device: id)
        let other = try bench.device(user)
        try bench.wait("both live") { [old, other].allSatisfy { $0.frames("caught_up").count == 1 } }
        let named = try #require(worker.sessions.values.first { $0.device == id })
        #expect(named.openedUs > 0 && Set(worker.sessions.values.map(\.openedUs)).count == 2)
        // Of another partition, and of no session.
        worker.send(.takenOver(partition: (partition + 1) % 4, named.number))
        worker.send(.takenOver(partition: partition, .max))
        worker.send(.takenOver(partition: partition, named.number))
        try bench.wait("it is closed") { old.isClosed }
        #expect(old.closeCode == CloseCode(rawValue: 4003))
        worker.send(.takenOver(partition: partition, named.number))
        worker.push(#"{"type":"message"}"#, offset: 101, to: [user])
        try bench.wait("the other one goes on") { other.frames("message").count == 1 }
    }

    @Test func `two loops serve one port, and a device that comes to the other still takes over`() throws {
        let bench = try Bench { $0.loops = 2 }
        #expect(bench.server.pushPorts.count == 2)
        let workers = [try bench.worker(loopIndex: 0), try bench.worker(loopIndex: 1)]
        let (user, id) = (UserID.random(), DeviceID.random())
        var last = try bench.device(user, device: id)
        for _ in 0..<8 {
            let next = try bench.device(user, device: id)
            let old = last
            try bench.wait("the one before is closed") { old.isClosed }
            #expect(old.closeCode == CloseCode(rawValue: 4003))
            last = next
        }
        try bench.wait("the last one lives") { last.frames("caught_up").count == 1 }
        try bench.wait("one session is left") { workers.map(\.sessions.count).reduce(0, +) == 1 }
    }
}
