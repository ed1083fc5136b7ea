//! Modules and the memory of their variables.

use komt_softgpu::DeviceSpec;
use komt_softgpu::exec::{LoadError, LoadedModule};
use komt_softgpu::memory::Memory;
use komt_softgpu::ptx;

#[test]
fn a_module_that_does_not_load_leaves_nothing_behind() {
    let text = |bytes: u32| {
        format!(
            ".version 8.0\n.target sm_80\n.address_size 64
            .global .align 4 .b8 small[100]; .const .align 4 .b32 fixed = 3; .global .align 4 .b8 large[{bytes}];
            .visible .entry k() {{ ret; }}"
        )
    };
    let (memory, spec) = (Memory::new(4096), DeviceSpec::sm(80));
    let load = |bytes| LoadedModule::new(ptx::parse(&text(bytes), &spec).unwrap(), &memory);
    assert_eq!(load(4096).map(|_| ()), Err(LoadError::OutOfMemory));
    assert_eq!((memory.free_bytes(), memory.live()), (4096, vec![]));
    let module = load(2048).unwrap();
    assert_eq!(memory.live().len(), 3);
    module.unload(&memory).unwrap();
    assert_eq!(memory.free_bytes(), 4096);
}
